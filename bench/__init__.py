"""The benchmark: this service, its peers and the bare loop on one machine in one run."""
