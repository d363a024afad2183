//! Real replicas in network namespaces behind a faulty network and on faulty disks.
