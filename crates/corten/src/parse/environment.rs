//! `-e` and `--env-file`: environment variables.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use corten_api::corten::EnvironmentVariable;

use crate::error::{Error, Result};
use crate::limits::ENV_FILE_BYTES_MAX;

/// Looks a variable of our own environment up.
type Lookup<'a> = &'a dyn Fn(&OsStr) -> Option<OsString>;

/// The variables of all files, then those of all `-e`; the later one of the
/// same name counts.
pub fn collect(
    files: &[std::path::PathBuf],
    given: &[OsString],
    own: Lookup<'_>,
) -> Result<Vec<EnvironmentVariable>> {
    let mut variables: Vec<EnvironmentVariable> = Vec::new();
    let mut add = |variable: EnvironmentVariable| {
        variables.retain(|other| other.key != variable.key);
        variables.push(variable);
    };
    for path in files {
        let bytes = read(path).map_err(Error::io(format!("read {}", path.display())))?;
        file(&bytes, own)
            .map_err(|(line, why)| {
                Error::Input(format!("unable to use {}: line {line}: {why}", path.display()))
            })?
            .into_iter()
            .for_each(&mut add);
    }
    for text in given {
        variable(text.as_bytes(), own)
            .map_err(|why| Error::Input(format!("unable to use -e {text:?}: {why}")))?
            .into_iter()
            .for_each(&mut add);
    }
    Ok(variables)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(ENV_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ENV_FILE_BYTES_MAX {
        let text = format!("it is larger than {} MiB", ENV_FILE_BYTES_MAX >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// The variables of a file: a line each; empty ones and those with `#` at the
/// beginning say nothing. Quotes belong to the value, as docker has it.
fn file(
    bytes: &[u8],
    own: Lookup<'_>,
) -> std::result::Result<Vec<EnvironmentVariable>, (usize, String)> {
    let mut variables = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        variables.extend(variable(line, own).map_err(|why| (number + 1, why))?);
    }
    Ok(variables)
}

/// `KEY=value`, or `KEY` for what our own environment says: nothing, if it has
/// no such variable.
fn variable(
    text: &[u8],
    own: Lookup<'_>,
) -> std::result::Result<Option<EnvironmentVariable>, String> {
    let (key, value) = match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], Some(text[at + 1..].to_vec())),
        None => (text, own(OsStr::from_bytes(text)).map(OsString::into_vec)),
    };
    let key = std::str::from_utf8(key).map_err(|_| "a name must be UTF-8".to_owned())?;
    if key.is_empty() {
        return Err("the name is missing: it is NAME=value".to_owned());
    }
    if key.contains(char::is_whitespace) {
        return Err(format!("the name {key:?} has a space in it"));
    }
    Ok(value.map(|value| EnvironmentVariable { key: key.to_owned(), value: value.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &OsStr) -> Option<OsString> {
        (name == "HOME").then(|| "/root".into())
    }

    fn shown(variables: &[EnvironmentVariable]) -> Vec<String> {
        let one = |v: &EnvironmentVariable| format!("{}={}", v.key, v.value.escape_ascii());
        variables.iter().map(one).collect()
    }

    #[test]
    fn a_file_has_a_variable_a_line() {
        let text = b"# comment\n\nA=1\r\n  B=two words # kept\nHOME\nUNSET\nC=\nD=\"q\"\nE=\xff";
        let variables = file(text, &own).unwrap();
        assert_eq!(
            shown(&variables),
            ["A=1", "B=two words # kept", "HOME=/root", "C=", "D=\\\"q\\\"", "E=\\xff"]
        );
        assert_eq!(file(b"A=1\nnot a name=1", &own).unwrap_err().0, 2);
        assert_eq!(file(b"=1", &own).unwrap_err().0, 1);
    }

    #[test]
    fn what_is_given_last_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "A=file\nB=file\n").unwrap();
        let files = [path];
        let given = ["A=flag".into(), "A=again".into(), "HOME".into(), "UNSET".into()];
        let variables = collect(&files, &given, &own).unwrap();
        assert_eq!(shown(&variables), ["B=file", "A=again", "HOME=/root"]);
        let error = collect(&[dir.path().join("absent")], &[], &own).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        let error = collect(&[], &["=x".into()], &own).unwrap_err();
        assert!(error.to_string().contains("NAME=value"), "{error}");
    }

    #[test]
    fn a_file_that_has_no_end_is_refused() {
        let error = collect(&["/dev/zero".into()], &[], &own).unwrap_err();
        assert!(error.to_string().contains("larger"), "{error}");
    }
}
