"""Files on disk or in an object store: durable writes, leases, publish-once, local copies, free space."""
