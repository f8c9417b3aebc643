"""Assets, one file per stage; each asset calls the plain function of its stage."""
