//! The configuration from its files: the main one, then the drop-ins.

use std::path::{Path, PathBuf};

use super::{Config, suggest};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("unable to read the configuration {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not say what it should.
    #[error("unable to use the configuration {}:{line}: {message}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what may have been meant.
        message: String,
    },
    /// All files together say something that cannot be.
    #[error("unable to use the configuration: {0}")]
    Check(String),
}

/// What the command line sets, over all files.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Keep images and records in this directory
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// Keep what does not outlive a reboot in this directory
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// Listen on this socket
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
}

/// Reads the configuration. A file named on the command line must be there;
/// the default one need not be.
pub fn load(named: Option<&Path>, overrides: &Overrides) -> Result<Config, Error> {
    let main = named.unwrap_or(Path::new(super::DEFAULT_PATH));
    let mut merged = toml::Table::new();
    match std::fs::read_to_string(main) {
        Ok(text) => merge(&mut merged, parse(main, &text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {}
        Err(source) => return Err(Error::Read { path: main.to_owned(), source }),
    }
    for path in drop_ins(&main.with_file_name("conf.d"))? {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        merge(&mut merged, parse(&path, &text)?);
    }
    // Each file was right, so the sum of them is of the right types.
    let mut config: Config =
        merged.try_into().map_err(|error: toml::de::Error| Error::Check(error.to_string()))?;
    let Overrides { root, state, socket } = overrides.clone();
    // A daemon with its own state has its own socket, unless one is named.
    if let (Some(state), None) = (&state, &socket) {
        config.socket = state.join("corten.sock");
    }
    config.root = root.unwrap_or(config.root);
    config.state = state.unwrap_or(config.state);
    config.socket = socket.unwrap_or(config.socket);
    config.check().map_err(Error::Check)?;
    Ok(config)
}

/// The files of `conf.d` in the order of their names.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Parses one file, first as a configuration, so that errors know their line.
fn parse(path: &Path, text: &str) -> Result<toml::Table, Error> {
    let failed = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::Parse { path: path.to_owned(), line, message: suggest::explain(error.message()) }
    };
    toml::from_str::<Config>(text).map_err(failed)?;
    toml::from_str(text).map_err(failed)
}

/// Puts `over` over `base`: tables key by key, everything else as a whole.
fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CriNetwork, LogFormat};

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn loaded(dir: &tempfile::TempDir) -> Result<Config, Error> {
        load(Some(&dir.path().join("config.toml")), &Overrides::default())
    }

    #[test]
    fn drop_ins_win_in_the_order_of_their_names() {
        let dir = written(&[
            ("config.toml", "root = '/a'\n[log]\nlevel = 'warn'\nformat = 'json'\n"),
            ("conf.d/20-b.toml", "[log]\nlevel = 'trace'\n"),
            ("conf.d/10-a.toml", "[log]\nlevel = 'debug'\n[network]\ncri = 'builtin'\n"),
            ("conf.d/99-not.conf", "nonsense"),
            ("conf.d/.hidden.toml", "nonsense"),
        ]);
        let config = loaded(&dir).unwrap();
        assert_eq!(config.root, Path::new("/a"));
        assert_eq!((config.log.level.as_str(), config.log.format), ("trace", LogFormat::Json));
        assert_eq!(config.network.cri, CriNetwork::Builtin);
        assert_eq!(config.state, Config::default().state);
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_suggestion() {
        let dir = written(&[("config.toml", "root = '/a'\n\n[network]\ncir = 'cni'\n")]);
        let error = loaded(&dir).unwrap_err().to_string();
        assert!(error.contains("config.toml:4:"), "{error}");
        assert!(error.contains("cir") && error.contains("did you mean `cri`?"), "{error}");
        let dir = written(&[("config.toml", ""), ("conf.d/a.toml", "[log]\nformat = 'tekst'\n")]);
        let error = loaded(&dir).unwrap_err().to_string();
        assert!(error.contains("a.toml:2:") && error.contains("did you mean `text`?"), "{error}");
        let dir = written(&[("config.toml", "root = \n")]);
        assert!(loaded(&dir).unwrap_err().to_string().contains("config.toml:1:"));
    }

    #[test]
    fn only_a_named_file_must_be_there() {
        let missing = Path::new("/nonexistent/config.toml");
        assert!(matches!(load(Some(missing), &Overrides::default()), Err(Error::Read { .. })));
    }

    #[test]
    fn the_command_line_wins() {
        let dir = written(&[("config.toml", "root = '/a'\nsocket = '/a.sock'\n")]);
        let path = dir.path().join("config.toml");
        let overrides = Overrides { state: Some("/s".into()), ..Overrides::default() };
        let config = load(Some(&path), &overrides).unwrap();
        assert_eq!(config.socket, Path::new("/s/corten.sock"));
        let overrides = Overrides { socket: Some("/b.sock".into()), ..overrides };
        assert_eq!(load(Some(&path), &overrides).unwrap().socket, Path::new("/b.sock"));
    }
}
