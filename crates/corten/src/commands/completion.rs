//! `corten completion`: scripts that complete commands in shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Result;
use crate::output;

/// Print a script that completes commands in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "To have it in every shell:\n  \
    corten completion bash > /etc/bash_completion.d/corten\n  \
    corten completion zsh > /usr/local/share/zsh/site-functions/_corten\n  \
    corten completion fish > /etc/fish/completions/corten.fish")]
pub struct Arguments {
    /// The shell
    shell: ShellName,
}

/// The shells that we try.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ShellName {
    /// GNU's
    Bash,
    /// Z
    Zsh,
    /// fish
    Fish,
}

impl Arguments {
    /// Prints it.
    pub fn run(self) -> Result<u8> {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(
            shell,
            &mut crate::cli::Arguments::command(),
            "corten",
            &mut script,
        );
        output::write_all(&script)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut command = crate::cli::Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "corten", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in command.get_subcommands().map(clap::Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}
