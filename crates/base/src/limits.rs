//! Every limit of Corten, in one place.
//!
//! A limit is named for what it bounds, units last. Where one limit is made
//! of others, the sum is written out, so that memory can be audited by reading.

/// Bytes of one frame between daemon and shim.
pub const FRAME_BYTES_MAX: usize = 4096;
/// Descriptors passed with one frame (the kernel's `SCM_MAX_FD` is 253).
pub const FRAME_FDS_MAX: usize = 250;
/// Bytes of one launch plan. A service-link environment alone can reach 2 MB.
pub const PLAN_BYTES_MAX: usize = 16 << 20;
/// Containers of one pod, ephemeral ones included.
pub const POD_CONTAINERS_MAX: usize = 1024;
/// Execs that may run at the same time in one pod.
pub const POD_EXECS_MAX: usize = 1024;

/// Containers whose plans for execs are kept ready: those that were made, or
/// looked into, last. Each takes a few KiB.
pub const EXEC_BASES_MAX: usize = 64;
/// Containers of which the files are kept open by which execs enter their
/// groups: those that were last made, or looked into. On v1 each takes some ten
/// descriptors.
pub const EXEC_GATES_MAX: usize = 64;
/// Groups of execs that are kept for the next ones in the same container.
pub const EXEC_GROUPS_KEPT_MAX: usize = 8;

/// Bytes of content in one CRI log line; longer ones are split with tag `P`.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of output that a shim holds for its log thread; twice this is in
/// memory while a log disk is slow.
pub const LOG_QUEUE_BYTES_MAX: usize = 64 << 10;
/// Messages that a shim keeps for a daemon that does not read them; then it
/// drops the connection, and the daemon asks again.
pub const SHIM_MESSAGES_MAX: usize = 2 * (POD_CONTAINERS_MAX + POD_EXECS_MAX);
/// Processes of one container that are listed.
pub const PROCESSES_LISTED_MAX: usize = 4096;
/// Bytes of a process's command line that are shown.
pub const PROCESS_COMMAND_BYTES_MAX: usize = 1024;
/// Clients attached to the containers of one pod at the same time.
pub const POD_ATTACHMENTS_MAX: usize = 32;
/// Bytes of a stream that wait in the shim for one attached client.
pub const ATTACHMENT_BYTES_MAX: usize = 4 * LOG_QUEUE_BYTES_MAX;
/// Bytes of input of one attached client that wait in the shim.
pub const ATTACHMENT_INPUT_BYTES_MAX: usize = 4 << 10;
/// Ends of children that a shim does not know, kept while an OCI runtime may
/// still name one of them.
pub const SHIM_STRAYS_MAX: usize = 256;
/// Bytes of the file in which an OCI runtime leaves the number of a process.
pub const PID_FILE_BYTES_MAX: usize = 32;
/// Bytes from the end of an OCI runtime's log that are searched for its error.
pub const RUNTIME_LOG_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an archive of a checkpoint.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 40;
/// Files in an archive of a checkpoint.
pub const CHECKPOINT_FILES_MAX: usize = 1 << 20;
/// Bytes that an OCI runtime may print about its features.
pub const RUNTIME_FEATURES_BYTES_MAX: usize = 1 << 20;
/// Bytes of one exit record.
pub const EXIT_RECORD_BYTES: usize = 88;
/// Bytes of exit records that are read of one shim.
pub const EXIT_RECORDS_BYTES_MAX: usize = 64 << 20;
/// Bytes of each output stream that ExecSync keeps; the rest is dropped
/// (CVE-2022-1708).
pub const EXEC_OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Bytes of a gRPC message that a client may send (and what the kubelet accepts).
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of a gRPC message that we send: who asks for a list in one message
/// gets it, and decides by itself how much it takes. The metrics of a pod with
/// one container have 25 kB.
pub const GRPC_ANSWER_BYTES_MAX: usize = 128 << 20;

/// Bytes of an image manifest or index.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of an image configuration.
pub const IMAGE_CONFIG_BYTES_MAX: usize = 8 << 20;
/// Layers of one image (overlayfs itself stops at 500).
pub const IMAGE_LAYERS_MAX: usize = 500;
/// Manifests of one index.
pub const INDEX_MANIFESTS_MAX: usize = 1024;
/// Unpacked bytes of one layer.
pub const LAYER_BYTES_MAX: u64 = 256 << 30;
/// Entries of one layer.
pub const LAYER_ENTRIES_MAX: u64 = 8 << 20;
/// Bytes of one path in a layer.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of the extended headers of one tar entry.
pub const PAX_BYTES_MAX: usize = 1 << 20;
/// Redirects followed for one registry request.
pub const REDIRECTS_MAX: usize = 10;
/// Attempts at one registry request, the first one included.
pub const REGISTRY_ATTEMPTS_MAX: u32 = 5;
/// Bytes of an error body of a registry that are read for the message.
pub const REGISTRY_ERROR_BYTES_MAX: usize = 64 << 10;

/// Bytes that a CNI plugin may print.
pub const CNI_OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one CNI configuration or cached result.
pub const CNI_CONFIG_BYTES_MAX: usize = 1 << 20;
/// Configuration files looked at in one CNI directory.
pub const CNI_FILES_MAX: usize = 256;
/// Plugins of one CNI network.
pub const CNI_PLUGINS_MAX: usize = 32;
/// Seconds that one CNI plugin may take, unless configured otherwise.
pub const CNI_PLUGIN_SECONDS_MAX: u64 = 60;
/// Network namespaces kept ready in advance.
pub const NETNS_POOL_MAX: usize = 8;

/// Bytes of a record (sandbox, container) on disk.
pub const RECORD_BYTES_MAX: usize = 32 << 20;
/// Bytes of the key of a record.
pub const RECORD_KEY_BYTES_MAX: usize = 1024;
/// Bytes of all extended attributes of one entry of a layer.
pub const XATTR_BYTES_MAX: usize = 256 << 10;
/// Pieces of data in one sparse file of a layer (CVE-2025-58183).
pub const SPARSE_PIECES_MAX: usize = 1 << 20;
/// Bytes of what is written down about one layer.
pub const LAYER_METADATA_BYTES_MAX: u64 = 128 << 20;
/// Bytes of the paths of a layer's directories, which are held while it is unpacked.
pub const LAYER_DIRECTORY_PATHS_BYTES_MAX: usize = 64 << 20;
/// Entries looked at for the usage of one snapshot; beyond, it is a lower bound.
pub const USAGE_ENTRIES_MAX: u64 = 4 << 20;
/// Entries of a snapshot that are counted at once; beyond, it takes its time.
pub const USAGE_QUICK_ENTRIES_MAX: u64 = 1024;

/// Processes of one container whose descriptors are counted.
pub const PROCESSES_COUNTED_MAX: usize = 1024;
/// Descriptors of one container that are looked at, whether they are sockets.
pub const SOCKETS_LOOKED_AT_MAX: usize = 4096;

/// Bytes of the image's `/etc/passwd` or `/etc/group` that are read.
pub const PASSWD_BYTES_MAX: usize = 4 << 20;

/// Bytes of an id, an id's beginning, or a name that a client asks for.
pub const ID_QUERY_BYTES_MAX: usize = 256;
/// Bytes of a host name (the kernel's `__NEW_UTS_LEN`).
pub const HOSTNAME_BYTES_MAX: usize = 64;
/// Bytes of an error's sentence on the wire: it travels in a header.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Mounts of one container.
pub const CONTAINER_MOUNTS_MAX: usize = 4096;
/// Devices of one container, CDI devices included.
pub const CONTAINER_DEVICES_MAX: usize = 4096;
/// Host ports of one pod.
pub const POD_PORTS_MAX: usize = 4096;

/// Bytes of a cgroup's file that are read (`cgroup.procs` is the longest).
pub const CGROUP_FILE_BYTES_MAX: u64 = 4 << 20;
/// Calls under way on one connection.
pub const GRPC_STREAMS_MAX: u32 = 1024;
/// Bytes of a call, or of a connection, that may be under way unread.
pub const GRPC_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one piece of a stream (archives, output of an exec).
pub const GRPC_CHUNK_BYTES: usize = 64 << 10;
/// Bytes of one message of a streamed list, not counting its last item.
pub const STREAM_BATCH_BYTES: usize = 1 << 20;
/// Items in one message of a streamed list.
pub const STREAM_BATCH_ITEMS_MAX: usize = 512;
/// Names of methods that calls are counted by.
pub const GRPC_METHODS_MAX: usize = 256;
/// Clients that read the daemon's metrics at the same time.
pub const METRICS_CLIENTS_MAX: usize = 16;
/// Bytes of a request for metrics.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 << 10;
/// Events that are kept for those who listen slowly.
pub const EVENTS_MAX: usize = 2048;
/// Views of containers that kept events refer to; most are shared.
pub const EVENT_VIEWS_MAX: usize = 32 << 10;
/// Bytes of the file of events.
pub const EVENTS_FILE_BYTES_MAX: usize = 2 << 20;
/// Entries of a log that are sent in one message.
pub const LOG_BATCH_ENTRIES_MAX: usize = 256;
/// Lines from the end of a log that can be asked for.
pub const LOG_TAIL_LINES_MAX: u32 = 1 << 20;
/// Bytes of a CDI file.
pub const CDI_FILE_BYTES_MAX: usize = 4 << 20;
/// CDI files that are read of one directory.
pub const CDI_FILES_MAX: usize = 1024;
/// Bytes of the list of AppArmor profiles that are read.
pub const APPARMOR_LIST_BYTES_MAX: u64 = 4 << 20;
/// Files of one mount that get an SELinux label.
pub const RELABEL_ENTRIES_MAX: u64 = 4 << 20;
/// Directories in one another, of which all get an SELinux label.
pub const RELABEL_DEPTH_MAX: usize = 256;
/// Bytes of an SELinux label.
pub const SELINUX_LABEL_BYTES_MAX: usize = 1024;
/// Bytes of a seccomp profile in a file.
pub const SECCOMP_PROFILE_BYTES_MAX: usize = 1 << 20;

/// Bytes of an archive of images, inflated: it is spooled to the store's disk.
pub const IMAGE_ARCHIVE_BYTES_MAX: u64 = 256 << 30;
/// Entries of an archive of images.
pub const IMAGE_ARCHIVE_ENTRIES_MAX: usize = 64 << 10;
/// Images that are loaded from, or saved to, one archive.
pub const IMAGE_ARCHIVE_IMAGES_MAX: usize = 1024;
/// Links that lead from one name in an archive to the next.
pub const IMAGE_ARCHIVE_LINKS_MAX: usize = 8;
/// Names of one image in one namespace, and of one image in an archive.
pub const IMAGE_NAMES_MAX: usize = 1024;
/// Window of zstd that is accepted (log2): 128 MiB, what the tool itself accepts.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes of `hosts.toml`.
pub const HOSTS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Hosts in one `hosts.toml`.
pub const HOSTS_MAX: usize = 64;
/// Bytes of a file with certificates or a key for registries.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 4 << 20;
/// Certificate files of one registry host.
pub const CERTIFICATE_FILES_MAX: usize = 64;
/// Bytes of a registry's token; it travels in a header.
pub const REGISTRY_TOKEN_BYTES_MAX: usize = 32 << 10;
/// Bytes of a token server's answer.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 256 << 10;
/// Seconds that a registry's Retry-After is obeyed at most.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 60;

/// Bytes of the payload of one SPDY control frame.
pub const SPDY_CONTROL_BYTES_MAX: usize = 16 << 10;
/// Bytes of the headers of one SPDY stream, inflated.
pub const SPDY_HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers of one SPDY stream.
pub const SPDY_HEADERS_MAX: usize = 64;
/// Streams that are open on one SPDY connection.
pub const SPDY_STREAMS_MAX: usize = 2048;
/// Bytes that are read from a process, or a port, and sent as one frame.
pub const STREAM_CHUNK_BYTES: usize = 64 << 10;
/// Bytes of sizes of a terminal that are no whole object yet.
pub const STREAM_RESIZE_BYTES_MAX: usize = 1 << 10;
/// Bytes of a client's input that wait for a process, or a port, that is slow
/// to take them; then nothing more is read from that client.
pub const STREAM_QUEUE_BYTES_MAX: usize = 256 << 10;
/// Bytes of answers of a protocol itself (pings, replies) that wait for a client
/// that is slow to take them.
pub const STREAM_CONTROL_BYTES_MAX: usize = 64 << 10;
/// Tokens for streams that nobody has used yet.
pub const STREAM_TOKENS_MAX: usize = 1000;
/// Seconds that a token for a stream may be used.
pub const STREAM_TOKEN_SECONDS_MAX: u64 = 60;
/// Connections of streams.
pub const STREAM_CONNECTIONS_MAX: usize = 4096;
/// Seconds that a client may take to ask, and then to open its streams.
pub const STREAM_OPEN_SECONDS_MAX: u64 = 30;
/// Seconds that a client may take to read the last of a session, and to leave.
pub const STREAM_LINGER_SECONDS_MAX: u64 = 15 * 60;
/// Ports of one WebSocket that forwards them.
pub const STREAM_PORTS_MAX: usize = 64;
