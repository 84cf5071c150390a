//! A disk that hangs: a filesystem in user space of one file, whose writes get
//! no answer until the test lets them go.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

// linux/fuse.h
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
/// Flags of an answer to OPEN.
const OPEN_DIRECT_IO: u8 = 1;
const OPEN_KEEP_CACHE: u8 = 2;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

const HEADER_BYTES: usize = 40;
const ROOT: u64 = 1;
const FILE: u64 = 2;
const ENOSYS: i32 = 38;
/// How long the kernel may remember names and attributes.
const VALID_SECONDS: u64 = 3600;
const WRITE_BYTES_MAX: u32 = 128 << 10;

/// A mounted disk. Every name in it is the same file. Unmounted when dropped.
pub struct HangingDisk {
    path: PathBuf,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

struct Shared {
    device: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    released: bool,
    /// Writes without an answer: their number and length.
    held: Vec<(u64, u32)>,
    /// What was written, once it was released.
    written: u64,
}

impl HangingDisk {
    /// Mounts one.
    pub fn mount(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory is made");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no NUL");
        mount("corten-test", path, "fuse", MountFlags::empty(), options.as_c_str())
            .expect("a fuse filesystem is mounted");
        let shared = Arc::new(Shared { device, state: Mutex::default() });
        let server = shared.clone();
        let server = std::thread::spawn(move || server.serve());
        Self { path: path.to_owned(), shared, server: Some(server) }
    }

    /// How many writes hang now.
    pub fn hanging(&self) -> usize {
        self.shared.state.lock().expect("no panic").held.len()
    }

    /// Bytes that were written.
    pub fn written(&self) -> u64 {
        self.shared.state.lock().expect("no panic").written
    }

    /// Answers all writes, those to come too.
    pub fn release(&self) {
        let mut state = self.shared.state.lock().expect("no panic");
        state.released = true;
        for (unique, length) in std::mem::take(&mut state.held) {
            state.written += u64::from(length);
            self.shared.answer(unique, 0, &write_out(length));
        }
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        self.release();
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Shared {
    /// Until the filesystem is unmounted.
    fn serve(&self) {
        let mut buffer = vec![0; WRITE_BYTES_MAX as usize + 4096];
        while let Ok(length) = (&self.device).read(&mut buffer) {
            self.one(&buffer[..length]);
        }
    }

    fn one(&self, request: &[u8]) {
        let u32_at = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().expect("4"));
        let u64_at = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("8"));
        let (opcode, unique, node) = (u32_at(4), u64_at(8), u64_at(16));
        match opcode {
            INIT => {
                let mut out = Vec::new();
                for word in [7, 31, u32_at(HEADER_BYTES + 8), 0, 0, WRITE_BYTES_MAX, 1] {
                    out.extend(u32::to_le_bytes(word));
                }
                out.resize(64, 0);
                self.answer(unique, 0, &out);
            }
            LOOKUP => {
                let mut out = Vec::new();
                for word in [FILE, 0, VALID_SECONDS, VALID_SECONDS, 0] {
                    out.extend(u64::to_le_bytes(word));
                }
                out.extend(attributes(FILE));
                self.answer(unique, 0, &out);
            }
            GETATTR | SETATTR => {
                let mut out = VALID_SECONDS.to_le_bytes().to_vec();
                out.extend([0; 8]);
                out.extend(attributes(node));
                self.answer(unique, 0, &out);
            }
            OPEN => {
                let mut out = [0; 16];
                // Past the page cache, which an open would otherwise clear, and
                // for that wait for the pages of a write that hangs.
                out[8] = OPEN_DIRECT_IO | OPEN_KEEP_CACHE;
                self.answer(unique, 0, &out);
            }
            FLUSH | RELEASE => self.answer(unique, 0, &[]),
            FORGET | BATCH_FORGET => {}
            WRITE => {
                let length = u32_at(HEADER_BYTES + 16);
                let mut state = self.state.lock().expect("no panic");
                if state.released {
                    state.written += u64::from(length);
                    self.answer(unique, 0, &write_out(length));
                } else {
                    state.held.push((unique, length));
                }
            }
            _ => self.answer(unique, -ENOSYS, &[]),
        }
    }

    fn answer(&self, unique: u64, error: i32, body: &[u8]) {
        let length = 16 + body.len() as u32;
        let mut out = length.to_le_bytes().to_vec();
        out.extend(error.to_le_bytes());
        out.extend(unique.to_le_bytes());
        out.extend(body);
        // Who asked may be gone.
        let _ = (&self.device).write(&out);
    }
}

fn write_out(length: u32) -> Vec<u8> {
    [length, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = if node == ROOT { 0o040_755 } else { 0o100_644 };
    let mut out = node.to_le_bytes().to_vec();
    // Size, blocks and times.
    out.extend([0; 40 + 12]);
    for word in [mode, 1, 0, 0, 0, 4096, 0] {
        out.extend(word.to_le_bytes());
    }
    out
}
