module valetkey.dev/clients/go

go 1.26
