"""A path on disk or in a bucket: files, leases, publish-once, local copies, free space."""
