//! The bounds of what this program takes in.

/// Bytes of a message from the daemon (as much as it sends).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of an archive that are sent at once.
pub const ARCHIVE_CHUNK_BYTES: usize = 64 << 10;
/// Pieces of an archive that wait for the daemon; then reading waits.
pub const ARCHIVE_CHUNKS_WAITING_MAX: usize = 4;
/// Bytes of one `--env-file`.
pub const ENV_FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a password on stdin.
pub const PASSWORD_BYTES_MAX: u64 = 64 << 10;
/// Ports in one `-p`.
pub const PORT_RANGE_MAX: usize = 1024;
/// Names that are tried for a container before we give up.
pub const NAME_ATTEMPTS_MAX: usize = 8;
/// Calls that are under way at the same time where a command names several
/// things.
pub const CALLS_MAX: usize = 32;
/// Characters of a command in a table.
pub const COMMAND_CHARS_MAX: usize = 32;
/// Bytes of input that are sent at once.
pub const INPUT_BYTES: usize = 16 << 10;
/// Pieces of input that wait for the daemon; then reading waits.
pub const INPUTS_WAITING_MAX: usize = 4;
/// Connections that are forwarded at the same time.
pub const CONNECTIONS_MAX: usize = 256;
