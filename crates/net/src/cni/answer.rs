//! What plugins answer, made into an attachment.

use corten_spec::request::Dns;
use serde::Deserialize;

use crate::{Attachment, CniRecord, Error, Interface, IpNet, Provider, Result};

/// The parts of a CNI result (0.3.0 to 1.1.0) that matter here.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    interfaces: Vec<AnswerInterface>,
    #[serde(default)]
    ips: Vec<AnswerIp>,
    dns: Option<AnswerDns>,
}

#[derive(Debug, Deserialize)]
struct AnswerInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct AnswerIp {
    address: IpNet,
    interface: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
struct AnswerDns {
    #[serde(default)]
    nameservers: Vec<String>,
    #[serde(default)]
    search: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
}

/// Reads the result that is in `record`; `plugin` is the one that gave it.
pub(super) fn attachment(record: CniRecord, plugin: &str) -> Result<Attachment> {
    let result = record.result.clone().unwrap_or_default();
    let answer: Answer = serde_json::from_value(result).map_err(|error| Error::Plugin {
        verb: "ADD",
        plugin: plugin.to_owned(),
        cause: format!("its result cannot be understood: {error}"),
    })?;
    // Without an interface an address belongs to the pod; with one, only if
    // that is in the pod.
    let in_pod = |ip: &&AnswerIp| {
        let interface = ip.interface.and_then(|index| answer.interfaces.get(index));
        interface.is_none_or(|interface| !interface.sandbox.is_empty())
    };
    let ips: Vec<IpNet> = answer.ips.iter().filter(in_pod).map(|ip| ip.address).collect();
    if ips.is_empty() {
        return Err(Error::Plugin {
            verb: "ADD",
            plugin: plugin.to_owned(),
            cause: "its result has no address for the pod".to_owned(),
        });
    }
    let interface = |interface: AnswerInterface| Interface {
        in_pod: !interface.sandbox.is_empty(),
        name: interface.name,
        mac: interface.mac,
    };
    let dns = answer.dns.filter(|dns| !dns.nameservers.is_empty() || !dns.search.is_empty());
    Ok(Attachment {
        interfaces: answer.interfaces.into_iter().map(interface).collect(),
        ips,
        dns: dns.map(|dns| Dns {
            servers: dns.nameservers,
            searches: dns.search,
            options: dns.options,
        }),
        provider: Provider::Cni(record),
    })
}
