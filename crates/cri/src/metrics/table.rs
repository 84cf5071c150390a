//! All metrics there are.

use corten_api::cri;

use super::{LABELS, Metric};

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            pub(super) const $id: Metric = Metric {
                name: $name,
                help: $help,
                kind: cri::MetricType::$kind,
                labels: &[$($label),*],
            };
        )*

        /// All of them.
        pub(super) const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    CPU_USAGE Counter "container_cpu_usage_seconds_total" ["cpu"]
        "Processor time, in seconds.";
    CPU_USER Counter "container_cpu_user_seconds_total" []
        "Processor time in programs, in seconds.";
    CPU_SYSTEM Counter "container_cpu_system_seconds_total" []
        "Processor time in the kernel, in seconds.";
    CPU_PERIODS Counter "container_cpu_cfs_periods_total" []
        "Periods of the processor quota that passed.";
    CPU_THROTTLED_PERIODS Counter "container_cpu_cfs_throttled_periods_total" []
        "Periods in which the quota was used up.";
    CPU_THROTTLED Counter "container_cpu_cfs_throttled_seconds_total" []
        "Time without the processor because the quota was used up, in seconds.";

    MEMORY_USAGE Gauge "container_memory_usage_bytes" []
        "All memory that is charged, in bytes.";
    MEMORY_WORKING_SET Gauge "container_memory_working_set_bytes" []
        "Memory without the file pages that are first to go, in bytes.";
    MEMORY_RSS Gauge "container_memory_rss" []
        "Anonymous memory, in bytes.";
    MEMORY_CACHE Gauge "container_memory_cache" []
        "File pages, in bytes.";
    MEMORY_MAPPED Gauge "container_memory_mapped_file" []
        "File pages that are mapped, in bytes.";
    MEMORY_SWAP Gauge "container_memory_swap" []
        "Swap in use, in bytes.";
    MEMORY_KERNEL Gauge "container_memory_kernel_usage" []
        "Memory of the kernel's on its behalf, in bytes.";
    MEMORY_PEAK Gauge "container_memory_max_usage_bytes" []
        "The most memory that was ever charged, in bytes.";
    MEMORY_LIMIT_HITS Counter "container_memory_failcnt" []
        "How often the memory limit was met.";
    MEMORY_FAULTS Counter "container_memory_failures_total" ["failure_type" "scope"]
        "Page faults: all, and those that had to read from a disk.";
    OUT_OF_MEMORY Counter "container_oom_events_total" []
        "Processes killed for want of memory.";

    HUGEPAGES_USAGE Gauge "container_hugetlb_usage_bytes" ["pagesize"]
        "Huge pages in use, in bytes.";
    HUGEPAGES_PEAK Gauge "container_hugetlb_max_usage_bytes" ["pagesize"]
        "The most huge pages that were ever in use, in bytes.";

    FS_USAGE Gauge "container_fs_usage_bytes" ["device"]
        "Bytes written to the root file system.";
    FS_LIMIT Gauge "container_fs_limit_bytes" ["device"]
        "Size of the file system that the root file system is in, in bytes.";
    FS_INODES_FREE Gauge "container_fs_inodes_free" ["device"]
        "Files that the file system can still take.";
    FS_INODES Gauge "container_fs_inodes_total" ["device"]
        "Files that the file system can hold.";
    FS_READS_BYTES Counter "container_fs_reads_bytes_total" ["device"]
        "Bytes read from a disk.";
    FS_READS Counter "container_fs_reads_total" ["device"]
        "Reads from a disk.";
    FS_WRITES_BYTES Counter "container_fs_writes_bytes_total" ["device"]
        "Bytes written to a disk.";
    FS_WRITES Counter "container_fs_writes_total" ["device"]
        "Writes to a disk.";
    BLOCK_USAGE Counter "container_blkio_device_usage_total" ["device" "major" "minor" "operation"]
        "Bytes that went to or came from a disk.";

    RECEIVED_BYTES Counter "container_network_receive_bytes_total" ["interface"]
        "Bytes received.";
    RECEIVED_PACKETS Counter "container_network_receive_packets_total" ["interface"]
        "Packets received.";
    RECEIVED_DROPPED Counter "container_network_receive_packets_dropped_total" ["interface"]
        "Packets received and thrown away.";
    RECEIVED_ERRORS Counter "container_network_receive_errors_total" ["interface"]
        "Errors while receiving.";
    SENT_BYTES Counter "container_network_transmit_bytes_total" ["interface"]
        "Bytes sent.";
    SENT_PACKETS Counter "container_network_transmit_packets_total" ["interface"]
        "Packets sent.";
    SENT_DROPPED Counter "container_network_transmit_packets_dropped_total" ["interface"]
        "Packets to be sent and thrown away.";
    SENT_ERRORS Counter "container_network_transmit_errors_total" ["interface"]
        "Errors while sending.";

    PROCESSES Gauge "container_processes" []
        "Processes.";
    THREADS Gauge "container_threads" []
        "Threads.";
    THREADS_MAX Gauge "container_threads_max" []
        "Threads that there may be; 0 for no limit.";
    DESCRIPTORS Gauge "container_file_descriptors" []
        "Open file descriptors.";
    SOCKETS Gauge "container_sockets" []
        "Open sockets.";
    ULIMITS Gauge "container_ulimits_soft" ["ulimit"]
        "Soft limits of the first process.";

    CPU_WAITING Counter "container_pressure_cpu_waiting_seconds_total" []
        "Time in which some waited for a processor, in seconds.";
    CPU_STALLED Counter "container_pressure_cpu_stalled_seconds_total" []
        "Time in which all waited for a processor, in seconds.";
    MEMORY_WAITING Counter "container_pressure_memory_waiting_seconds_total" []
        "Time in which some waited for memory, in seconds.";
    MEMORY_STALLED Counter "container_pressure_memory_stalled_seconds_total" []
        "Time in which all waited for memory, in seconds.";
    IO_WAITING Counter "container_pressure_io_waiting_seconds_total" []
        "Time in which some waited for disks, in seconds.";
    IO_STALLED Counter "container_pressure_io_stalled_seconds_total" []
        "Time in which all waited for disks, in seconds.";

    SPEC_CPU_PERIOD Gauge "container_spec_cpu_period" []
        "Period of the processor quota, in microseconds.";
    SPEC_CPU_QUOTA Gauge "container_spec_cpu_quota" []
        "Processor time in each period, in microseconds.";
    SPEC_CPU_SHARES Gauge "container_spec_cpu_shares" []
        "Share of the processor against others.";
    SPEC_MEMORY Gauge "container_spec_memory_limit_bytes" []
        "Memory limit in bytes; 0 for none.";
    SPEC_RESERVATION Gauge "container_spec_memory_reservation_limit_bytes" []
        "Memory that is kept for it, in bytes; 0 for none.";
    SPEC_SWAP Gauge "container_spec_memory_swap_limit_bytes" []
        "Limit of memory and swap together in bytes; 0 for none.";
    START_TIME Gauge "container_start_time_seconds" []
        "When it was started, in seconds since 1970.";
    LAST_SEEN Gauge "container_last_seen" []
        "When these metrics were read, in seconds since 1970.";
}

/// What CRI is told of all metrics; always the same.
pub fn descriptors() -> Vec<cri::MetricDescriptor> {
    let descriptor = |metric: &Metric| cri::MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: LABELS.iter().chain(metric.labels).map(|&label| label.to_owned()).collect(),
    };
    ALL.iter().map(descriptor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_56_with_different_names() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!((names.len(), ALL.len()), (56, 56));
        for metric in ALL {
            let labels: BTreeSet<_> = LABELS.iter().chain(metric.labels).collect();
            assert_eq!(labels.len(), LABELS.len() + metric.labels.len(), "{}", metric.name);
        }
    }
}
