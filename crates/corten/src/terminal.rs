//! Our own terminal: its size, and every key as it is typed.

use corten_api::corten::TerminalSize;
use rustix::termios::{self, OptionalActions, Termios};

use crate::error::{Error, Result};

/// Whether people type into our stdin.
pub fn is_typed_into() -> bool {
    termios::isatty(rustix::stdio::stdin())
}

/// How large the terminal is that our output goes to, if it does.
pub fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// While it lives, our terminal passes every key on, Ctrl-C too, and shows
/// nothing by itself: the container's terminal does.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Changes our terminal.
    pub fn enter() -> Result<Self> {
        let enter = || {
            let before = termios::tcgetattr(rustix::stdio::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)?;
            Ok::<_, std::io::Error>(Self { before })
        };
        enter().map_err(Error::io("prepare this terminal"))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let stdin = rustix::stdio::stdin();
        let _ = termios::tcsetattr(stdin, OptionalActions::Drain, &self.before);
    }
}
