"""The CRM's SQL database: landing its contacts, writing opt-outs and fields back."""
