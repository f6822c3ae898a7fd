"""Make it, unmake it: one module per kind of credential, none importing another."""
