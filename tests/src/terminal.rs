//! A program in a terminal, and who sits before it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use corten_kernel::stream::read_some;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::poll::until;

/// A program that runs in a terminal of its own.
pub struct Terminal {
    master: OwnedFd,
    child: Child,
    shown: Arc<Mutex<String>>,
    /// Puts on the screen what comes.
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program in a terminal of this many rows and columns.
    ///
    /// # Panics
    /// If there are no terminals or no such program.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::CLOEXEC | OpenptFlags::NOCTTY)
                .expect("a terminal");
        rustix::pty::grantpt(&master).expect("a terminal");
        rustix::pty::unlockpt(&master).expect("a terminal");
        // Before there is a program that could ask.
        set_size(&master, rows, columns);
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("its name");
        let slave = rustix::fs::open(
            &*name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("its other side");
        // setsid makes it the terminal of a session of its own, to which
        // the kernel tells sizes and Ctrl-C.
        let mut inside = Command::new("setsid");
        inside.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        let duplicate = || slave.try_clone().expect("a duplicate");
        inside.stdin(duplicate()).stdout(duplicate()).stderr(duplicate());
        let child = inside.spawn().expect("the program can be run");
        let shown = Arc::<Mutex<String>>::default();
        let (screen, output) = (shown.clone(), master.try_clone().expect("a duplicate"));
        // Ends when nobody has the other side any more.
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = read_some(&output, &mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                screen.lock().expect("no reader panics").push_str(&text);
            }
        });
        Self { master, child, shown, reader }
    }

    /// Makes it larger or smaller.
    ///
    /// # Panics
    /// If it is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// Types.
    ///
    /// # Panics
    /// If it is gone.
    pub fn types(&self, keys: &str) {
        let mut master = File::from(self.master.try_clone().expect("a duplicate"));
        master.write_all(keys.as_bytes()).expect("somebody sees it");
    }

    /// Everything that was shown so far.
    ///
    /// # Panics
    /// If the reader panicked.
    pub fn shown(&self) -> String {
        self.shown.lock().expect("no reader panics").clone()
    }

    /// Waits until this is shown, and forgets it with all before it.
    ///
    /// # Panics
    /// If it never comes.
    pub async fn shows(&self, text: &str) {
        let shown = self.shown.clone();
        until(&format!("the terminal shows {text:?} (so far: {:?})", self.shown()), async || {
            let mut shown = shown.lock().expect("no reader panics");
            let at = shown.find(text)?;
            *shown = shown.split_off(at + text.len());
            Some(())
        })
        .await;
    }

    /// Waits for the program's end, and until all that it said is shown: its
    /// exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let ended = async || child.try_wait().expect("it can be asked");
        let status = until("the program ends", ended).await;
        let reader = &self.reader;
        let read = async || reader.is_finished().then_some(());
        until("its last words are shown", read).await;
        status.code()
    }
}

impl Drop for Terminal {
    /// A program of a failing test gets SIGHUP with its terminal.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal ---\n{}", self.shown());
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn set_size(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).expect("it has a size");
}
