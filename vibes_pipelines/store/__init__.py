"""What is kept between runs: landed snapshots as files, the ledger as a database."""
