//! Network configurations: found in directories, checked, made into what each
//! plugin is given.

use std::path::{Path, PathBuf};

use corten_base::limits;
use serde_json::{Map, Value, json};

/// The versions of the CNI specification that we speak, old to new.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network: a list of plugins, run one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NetworkList {
    pub name: String,
    /// Index into [`VERSIONS`].
    version: usize,
    pub disable_check: bool,
    pub disable_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
    /// The list as it was read; a single plugin is made into a list.
    pub raw: Value,
}

impl NetworkList {
    /// The specification version that plugins are addressed in.
    pub fn version(&self) -> &'static str {
        VERSIONS[self.version]
    }

    /// Whether the version has this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        let since = match verb {
            "CHECK" => "0.4.0",
            "STATUS" | "GC" => "1.1.0",
            _ => return true,
        };
        VERSIONS.iter().position(|version| *version == since).is_some_and(|i| self.version >= i)
    }

    /// Whether DEL is told the result of ADD (since 0.4.0).
    pub fn delete_has_result(&self) -> bool {
        self.has_verb("CHECK")
    }

    /// Checks a configuration and takes it apart. The error says what is wrong,
    /// for the file's name to be put before it.
    pub fn parse(raw: Value) -> Result<Self, String> {
        let raw = as_list(raw)?;
        let list = raw.as_object().ok_or("it is no JSON object")?;
        let name = list.get("name").and_then(Value::as_str).ok_or("it has no \"name\"")?;
        check_name("network name", name)?;
        let plugins: Vec<_> = list
            .get("plugins")
            .and_then(Value::as_array)
            .ok_or("\"plugins\" is no list")?
            .iter()
            .map(|plugin| plugin.as_object().cloned().ok_or("a plugin is no JSON object"))
            .collect::<Result<_, _>>()?;
        if plugins.is_empty() || plugins.len() > limits::CNI_PLUGINS_MAX {
            let most = limits::CNI_PLUGINS_MAX;
            return Err(format!("it has {} plugins; 1 to {most} are possible", plugins.len()));
        }
        for plugin in &plugins {
            check_name("plugin type", plugin_type(plugin))?;
        }
        let flag = |key| {
            matches!(list.get(key), Some(Value::Bool(true)))
                || list.get(key).and_then(Value::as_str) == Some("true")
        };
        Ok(Self {
            name: name.to_owned(),
            version: choose_version(list)?,
            disable_check: flag("disableCheck"),
            disable_gc: flag("disableGC"),
            plugins,
            raw,
        })
    }

    /// What one plugin reads: its own part, the list's name and version, what
    /// came before, and the runtime's wishes that it can fulfil.
    pub fn for_plugin(
        &self,
        plugin: &Map<String, Value>,
        capabilities: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".to_owned(), json!(self.name));
        config.insert("cniVersion".to_owned(), json!(self.version()));
        let able = config.remove("capabilities").unwrap_or_default();
        let wishes: Map<_, _> = capabilities
            .iter()
            .filter(|(name, _)| able.get(name.as_str()) == Some(&Value::Bool(true)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !wishes.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(wishes));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        config
    }
}

/// The type of a plugin: the name of its program.
pub(super) fn plugin_type(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A configuration of one plugin is a list of one.
fn as_list(raw: Value) -> Result<Value, String> {
    if raw.get("plugins").is_some() {
        return Ok(raw);
    }
    if raw.get("type").is_none() {
        return Err("it has neither \"plugins\" nor \"type\"".to_owned());
    }
    let mut list = json!({ "name": raw.get("name"), "plugins": [&raw] });
    if let Some(version) = raw.get("cniVersion") {
        list["cniVersion"] = version.clone();
    }
    Ok(list)
}

/// The newest version that both know.
fn choose_version(list: &Map<String, Value>) -> Result<usize, String> {
    let mut wanted: Vec<&str> = list
        .get("cniVersions")
        .and_then(Value::as_array)
        .map(|versions| versions.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if let Some(version) = list.get("cniVersion") {
        wanted.push(version.as_str().ok_or("\"cniVersion\" is no string")?);
    }
    if wanted.is_empty() {
        return Err("it has no \"cniVersion\"".to_owned());
    }
    VERSIONS.iter().rposition(|version| wanted.contains(version)).ok_or_else(|| {
        let ours = VERSIONS.join(", ");
        format!("cniVersion {} is not supported (these are: {ours})", wanted.join(", "))
    })
}

/// Names become file names and arguments.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.bytes().all(inner) && name.len() <= 255 {
        return Ok(());
    }
    let name: String = name.chars().take(80).collect();
    Err(format!("the {what} {name:?} must be letters, digits, '_', '.' and '-'"))
}

/// The first valid configuration of the directories, in the order of names.
/// The error lists the directories, and what is wrong with the files in them.
pub(super) fn load(directories: &[PathBuf]) -> Result<NetworkList, String> {
    let mut wrong = Vec::new();
    for directory in directories {
        for path in candidates(directory) {
            match read(&path) {
                Ok(list) => return Ok(list),
                Err(reason) => wrong.push(format!("{}: {reason}", path.display())),
            }
        }
    }
    let searched: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
    let mut text = format!("no CNI configuration in {}", searched.join(", "));
    for reason in wrong {
        text.push_str("; ");
        text.push_str(&reason);
    }
    Err(text)
}

fn candidates(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let wanted = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    let mut paths: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(wanted).collect();
    paths.sort();
    paths.truncate(limits::CNI_FILES_MAX);
    paths
}

fn read(path: &Path) -> Result<NetworkList, String> {
    let bytes = read_bounded(path, limits::CNI_CONFIG_BYTES_MAX).map_err(|e| e.to_string())?;
    let raw = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    NetworkList::parse(raw)
}

/// Reads a regular file that may not be larger than so many bytes.
pub(super) fn read_bounded(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    // A named pipe must not make us wait.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(std::io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_valid_file_of_the_first_directory_wins() {
        let root = tempfile::tempdir().unwrap();
        let directories = [root.path().join("a"), root.path().join("b")];
        let none = load(&directories).unwrap_err();
        assert!(none.contains(&*directories[1].to_string_lossy()), "{none}");
        for directory in &directories {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(directories[0].join("10-broken.conflist"), "{").unwrap();
        std::fs::write(directories[0].join("11-notes.txt"), "hello").unwrap();
        let broken = load(&directories).unwrap_err();
        assert!(broken.contains("10-broken.conflist: EOF"), "{broken}");
        let single = r#"{"cniVersion":"0.4.0","name":"one","type":"ptp"}"#;
        std::fs::write(directories[1].join("05-one.conf"), single).unwrap();
        let list = load(&directories).unwrap();
        assert_eq!((list.name.as_str(), list.version(), list.plugins.len()), ("one", "0.4.0", 1));
        let two = r#"{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"two",
            "plugins":[{"type":"x"},{"type":"y"}]}"#;
        std::fs::write(directories[0].join("20-two.conflist"), two).unwrap();
        let list = load(&directories).unwrap();
        assert_eq!((list.name.as_str(), list.version()), ("two", "1.1.0"));
        assert!(list.has_verb("GC") && list.has_verb("CHECK"));
    }

    #[test]
    fn what_a_list_may_not_be() {
        for (raw, reason) in [
            (json!([]), "neither"),
            (json!({"plugins": [], "name": "a", "cniVersion": "1.0.0"}), "0 plugins"),
            (json!({"type": "../x", "name": "a", "cniVersion": "1.0.0"}), "plugin type"),
            (json!({"type": "x", "name": "a/b", "cniVersion": "1.0.0"}), "network name"),
            (json!({"type": "x", "cniVersion": "1.0.0"}), "no \"name\""),
            (json!({"type": "x", "name": "a"}), "no \"cniVersion\""),
            (json!({"type": "x", "name": "a", "cniVersion": "0.2.0"}), "0.2.0 is not supported"),
        ] {
            let error = NetworkList::parse(raw).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_plugin_gets_only_what_it_can_do() {
        let list = NetworkList::parse(json!({
            "cniVersion": "1.0.0", "name": "n",
            "plugins": [{"type": "p", "x": 1, "capabilities": {"portMappings": true, "mac": false}}],
        }))
        .unwrap();
        let wishes = json!({"portMappings": [1], "mac": "m", "dns": {}});
        let config = list.for_plugin(
            &list.plugins[0],
            wishes.as_object().unwrap(),
            Some(&json!({"ips": []})),
        );
        let wanted = json!({
            "type": "p", "x": 1, "name": "n", "cniVersion": "1.0.0",
            "runtimeConfig": {"portMappings": [1]}, "prevResult": {"ips": []},
        });
        assert_eq!(Value::Object(config), wanted);
    }
}
