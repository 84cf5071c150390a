//! The network's configuration in the verbose status, under the names that
//! installers of networks look for.

use corten_pods::CniView;
use serde_json::{Value, json};

/// `cniconfig`: where things are, and what is in use.
pub(super) fn config(view: &CniView) -> Value {
    json!({
        "PluginDirs": view.plugin_dirs,
        "PluginConfDir": view.config_dirs.first(),
        "PluginConfDirs": view.config_dirs,
        "PluginMaxConfNum": 1,
        "Prefix": view.link.trim_end_matches(char::is_numeric),
        "Networks": view.network.as_ref().ok().map(|list| [network(list, view.link)]),
    })
}

/// `lastCNILoadStatus`: a word, or what is wrong.
pub(super) fn load_status(view: &CniView) -> String {
    view.network.as_ref().err().map_or_else(|| "OK".to_owned(), Clone::clone)
}

fn network(list: &Value, link: &str) -> Value {
    let plugins = list["plugins"].as_array().into_iter().flatten();
    let plugins: Vec<Value> =
        plugins.map(|plugin| json!({ "Network": plugin, "Source": plugin.to_string() })).collect();
    json!({
        "IFName": link,
        "Config": {
            "Name": list["name"],
            "CNIVersion": list["cniVersion"],
            "Plugins": plugins,
            "Source": list.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(network: Result<Value, String>) -> CniView {
        CniView {
            config_dirs: vec!["/etc/cni/net.d".into()],
            plugin_dirs: vec!["/opt/cni/bin".into()],
            link: "eth0",
            network,
        }
    }

    #[test]
    fn what_installers_read() {
        let list = json!({ "name": "n", "cniVersion": "1.0.0", "plugins": [{ "type": "bridge" }] });
        let view = view(Ok(list));
        let config = config(&view);
        assert_eq!(
            (&config["PluginConfDir"], &config["Prefix"]),
            (&json!("/etc/cni/net.d"), &json!("eth"))
        );
        let network = &config["Networks"][0];
        assert_eq!((&network["IFName"], &network["Config"]["Name"]), (&json!("eth0"), &json!("n")));
        assert_eq!(network["Config"]["Plugins"][0]["Network"]["type"], "bridge");
        assert_eq!(load_status(&view), "OK");
    }

    #[test]
    fn what_they_read_before_there_is_a_network() {
        let view = view(Err("no CNI configuration in /etc/cni/net.d".into()));
        assert_eq!(config(&view)["Networks"], Value::Null);
        assert_eq!(load_status(&view), "no CNI configuration in /etc/cni/net.d");
    }
}
