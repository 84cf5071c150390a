//! What plugins are told about a pod: arguments and capabilities.

use corten_spec::request::Dns;
use serde_json::{Map, Value, json};

use crate::error::protocol_name;
use crate::{Error, NetworkRequest, Result};

/// Name of the pod's link.
pub(super) const POD_LINK: &str = "eth0";

/// What is kept to say the same again at DEL: arguments and capabilities.
pub(super) fn runtime(request: &NetworkRequest) -> Result<Value> {
    Ok(json!({ "args": arguments(request), "capabilities": capabilities(request)? }))
}

/// `CNI_ARGS`. Pod names cannot contain its separators; what does is left out.
fn arguments(request: &NetworkRequest) -> String {
    let mut text = "IgnoreUnknown=1".to_owned();
    for (key, value) in [
        ("K8S_POD_NAMESPACE", request.pod_namespace.as_str()),
        ("K8S_POD_NAME", request.pod_name.as_str()),
        ("K8S_POD_INFRA_CONTAINER_ID", request.sandbox.as_str()),
        ("K8S_POD_UID", request.pod_uid.as_str()),
    ] {
        if !value.is_empty() && !value.contains([';', '=', '\0']) {
            text.push_str(&format!(";{key}={value}"));
        }
    }
    text
}

fn capabilities(request: &NetworkRequest) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let ports: Vec<Value> = request
        .ports
        .iter()
        .filter(|port| port.host_port != 0)
        .map(|port| {
            let mut mapping = json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": protocol_name(port.protocol),
            });
            if !port.host_ip.is_empty() {
                mapping["hostIP"] = json!(port.host_ip);
            }
            mapping
        })
        .collect();
    if !ports.is_empty() {
        all.insert("portMappings".to_owned(), Value::Array(ports));
    }
    if let Some(bandwidth) = bandwidth(request)? {
        all.insert("bandwidth".to_owned(), bandwidth);
    }
    if let Some(Dns { servers, searches, options }) = &request.dns {
        let dns = json!({ "servers": servers, "searches": searches, "options": options });
        all.insert("dns".to_owned(), dns);
    }
    if !request.aliases.is_empty() {
        all.insert("aliases".to_owned(), json!(request.aliases));
    }
    if !request.annotations.is_empty() {
        let name = "io.kubernetes.cri.pod-annotations";
        all.insert(name.to_owned(), json!(request.annotations));
    }
    Ok(all)
}

/// Bandwidth limits, in bits per second, from the pod's annotations.
fn bandwidth(request: &NetworkRequest) -> Result<Option<Value>> {
    let mut limits = Map::new();
    for direction in ["ingress", "egress"] {
        let annotation = format!("kubernetes.io/{direction}-bandwidth");
        let Some(text) = request.annotations.get(&annotation) else { continue };
        let rate = quantity(text).filter(|rate| (1_000..=1_000_000_000_000_000).contains(rate));
        let rate = rate.ok_or_else(|| {
            Error::NotConfigured(format!(
                "the annotation {annotation} must be between 1k and 1P bits per second, \
                 and it is {text:?}"
            ))
        })?;
        limits.insert(format!("{direction}Rate"), json!(rate));
        // As large as plugins take it: only the rate is meant to limit.
        limits.insert(format!("{direction}Burst"), json!(i32::MAX));
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// A Kubernetes quantity as a whole number, rounded up: `10M`, `1.5Gi`, `1e6`.
fn quantity(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor = match suffix {
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(digits.parse::<i8>().ok()?.into())
        }
    };
    let value = (number.parse::<f64>().ok()? * factor).ceil();
    (value.is_finite() && value < 9e18).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, value) in [
            ("10M", Some(10_000_000)),
            ("1.5Ki", Some(1536)),
            ("1500m", Some(2)),
            ("2e3", Some(2000)),
            ("0", Some(0)),
            ("", None),
            ("M", None),
            ("1X", None),
            ("-5", None),
            ("1.2.3", None),
        ] {
            assert_eq!(quantity(text), value, "{text}");
        }
    }
}
