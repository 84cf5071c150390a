//! The CNI client, with Debian's plugins and with misbehaving ones.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::testing::{Host, PATIENCE, Pod, ask, serve};

const PLUGINS: &str = "/usr/lib/cni";

fn settings(host: &Host) -> CniSettings {
    CniSettings {
        config_dirs: vec![host.path("none"), host.path("later/net.d")],
        plugin_dirs: vec![host.path("bin"), PLUGINS.into()],
        cache_dir: host.path("cache"),
        plugin_deadline: Duration::from_secs(30),
    }
}

fn write_config(host: &Host, plugins: Value) {
    let list = json!({ "cniVersion": "1.0.0", "name": "testnet", "plugins": plugins });
    std::fs::create_dir_all(host.path("later/net.d")).unwrap();
    std::fs::write(host.path("later/net.d/10-net.conflist"), list.to_string()).unwrap();
}

fn debian_plugins(host: &Host) -> Value {
    json!([
        {
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": host.path("ipam"),
                "ranges": [[{ "subnet": "10.77.0.0/24" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        },
        { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
    ])
}

/// A plugin that is a shell script.
fn script(host: &Host, name: &str, text: &str) {
    let path = host.path("bin").join(name);
    std::fs::create_dir_all(host.path("bin")).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn count(path: PathBuf) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

#[test]
fn debians_plugins_give_a_pod_its_network() {
    Host::run(async |host| {
        write_config(host, debian_plugins(host));
        let cni = Cni::new(settings(host)).unwrap();
        cni.status().unwrap();
        let versions = cni.plugin_versions().await.unwrap();
        assert!(versions[0].1.as_ref().unwrap().contains(&"1.0.0".to_owned()));
        let pod = host.pod(&[(8080, 80)]).await;
        serve(&pod.namespaces.net, 80);
        let began = Instant::now();
        let attachment = cni.attach(&pod.request).await.unwrap();
        println!("ADD of bridge and portmap: {:?}", began.elapsed());
        assert_eq!(attachment.ips[0].to_string(), "10.77.0.2/24");
        assert!(attachment.interfaces.iter().any(|link| link.in_pod && link.name == "eth0"));
        assert!(ask(&host.net, attachment.ips[0].address, 80).is_ok());
        assert!(ask(&host.net, "10.77.0.1".parse().unwrap(), 8080).is_ok());
        // Debian's portmap looks for IPv6 rules of IPv4 pods: check one without.
        let other = host.pod(&[]).await;
        let at_other = cni.attach(&other.request).await.unwrap();
        let Provider::Cni(record) = &at_other.provider else { panic!() };
        cni.check(&other.request, record).await.unwrap();
        cni.detach(&other.request, Some(&at_other)).await.unwrap();
        // The configuration is replaced, and the daemon too.
        write_config(host, json!([{ "type": "no-such-plugin" }]));
        let cni = Cni::new(settings(host)).unwrap();
        cni.detach(&pod.request, Some(&attachment)).await.unwrap();
        assert!(ask(&host.net, "10.77.0.1".parse().unwrap(), 8080).is_err());
        assert_eq!(count(host.path("cache")), 0);
        cni.detach(&pod.request, Some(&attachment)).await.unwrap();
    });
}

#[test]
fn del_works_after_a_crash_and_without_the_namespace() {
    Host::run(async |host| {
        write_config(host, debian_plugins(host));
        let cni = Cni::new(settings(host)).unwrap();
        let leases = || {
            let entries = std::fs::read_dir(host.path("ipam/testnet")).into_iter().flatten();
            entries
                .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("10."))
                .count()
        };
        for netns_is_gone in [false, true] {
            let Pod { request, namespaces } = host.pod(&[]).await;
            cni.attach(&request).await.unwrap();
            assert_eq!(leases(), 1);
            if netns_is_gone {
                host.pool.release(&request.sandbox).unwrap();
                std::fs::write(&request.netns, "").unwrap();
            }
            drop(namespaces);
            let again = Cni::new(settings(host)).unwrap();
            again.detach(&request, None).await.unwrap();
            assert_eq!((leases(), count(host.path("cache"))), (0, 0));
        }
        let pod = host.pod(&[]).await;
        cni.attach(&pod.request).await.unwrap();
        cni.reconcile(&[]).await.unwrap();
        assert_eq!(leases(), 1, "attached by this daemon");
        Cni::new(settings(host)).unwrap().reconcile(&[]).await.unwrap();
        assert_eq!((leases(), count(host.path("cache"))), (0, 0));
    });
}

#[test]
fn a_configuration_that_appears_later_is_seen() {
    Host::run(async |host| {
        let cni = Cni::new(settings(host)).unwrap();
        let missing = cni.status().unwrap_err();
        for directory in ["none", "later/net.d"] {
            assert!(missing.contains(&*host.path(directory).to_string_lossy()), "{missing}");
        }
        let pod = host.pod(&[]).await;
        let error = cni.attach(&pod.request).await.unwrap_err().to_string();
        assert!(error.contains("no CNI configuration in "), "{error}");
        write_config(host, json!([{ "type": "not-there-yet" }]));
        wait_for(&cni, |status| {
            status
                .as_ref()
                .is_err_and(|text| text.contains("plugin not-there-yet of network testnet"))
        })
        .await;
        script(host, "not-there-yet", "exit 1");
        wait_for(&cni, |status| status.is_ok()).await;
        std::fs::remove_file(host.path("later/net.d/10-net.conflist")).unwrap();
        wait_for(&cni, |status| status.is_err()).await;
    });
}

async fn wait_for(cni: &Cni, wanted: impl Fn(&std::result::Result<(), String>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cni.status();
        if wanted(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn misbehaving_plugins() {
    Host::run(async |host| {
        let add = "if [ $CNI_COMMAND = ADD ]; then";
        script(host, "garbage", &format!("{add} echo surprise; fi"));
        script(host, "silent", "exit 0");
        script(
            host,
            "refuses",
            &format!(r#"{add} echo '{{"code":7,"msg":"no","details":"full"}}'; exit 1; fi"#),
        );
        script(host, "dies", &format!("{add} echo oh dear >&2; kill -9 $$; fi"));
        script(host, "floods", &format!("{add} exec yes; fi"));
        script(host, "no-address", &format!("{add} echo '{{\"ips\":[]}}'; fi"));
        script(
            host,
            "hangs",
            &format!("{add} sleep 1000 & echo $! > {}; wait; fi", host.path("child").display()),
        );
        let mut settings = settings(host);
        for (plugin, seconds, wanted) in [
            ("garbage", 30, r#"the CNI plugin garbage: it printed what is no result: "surprise""#),
            ("silent", 30, "silent: it printed nothing"),
            (
                "refuses",
                30,
                "to ADD the pod's network with the CNI plugin refuses: no: full (code 7)",
            ),
            ("dies", 30, r#"it ended with signal: 9 (SIGKILL) and complained: "oh dear""#),
            ("floods", 1, "it was killed: it did not end within 1 seconds"),
            ("no-address", 30, "its result has no address for the pod"),
            ("missing", 30, "missing: there is no such program in "),
            ("hangs", 1, "it was killed: it did not end within 1 seconds"),
        ] {
            write_config(host, json!([{ "type": plugin }]));
            settings.plugin_deadline = Duration::from_secs(seconds);
            let cni = Cni::new(settings.clone()).unwrap();
            let pod = host.pod(&[]).await;
            let error = cni.attach(&pod.request).await.unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            if plugin != "missing" {
                assert_eq!(count(host.path("cache")), 0, "{plugin}");
            }
            let _ = std::fs::remove_dir_all(host.path("cache"));
        }
        let child = std::fs::read_to_string(host.path("child")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while alive() {
            assert!(Instant::now() < deadline, "the plugin's child lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn what_plugins_are_told() {
    Host::run(async |host| {
        let log = host.path("log").display().to_string();
        let report = format!(
            "echo \"$CNI_COMMAND $CNI_ARGS $CNI_IFNAME\" >> {log}\n\
             cat >> {log}; echo >> {log}\n\
             [ $CNI_COMMAND = STATUS ] && [ -e {log}.bad ] && echo '{{\"msg\":\"not yet\"}}' && exit 1\n\
             echo '{{\"ips\":[{{\"address\":\"10.1.1.1/24\"}}],\"dns\":{{\"nameservers\":[\"9.9.9.9\"]}}}}'"
        );
        script(host, "report", &report);
        let list = json!({
            "cniVersion": "1.1.0", "name": "n",
            "plugins": [{ "type": "report", "capabilities": { "bandwidth": true } }],
        });
        std::fs::create_dir_all(host.path("none")).unwrap();
        std::fs::write(host.path("none/a.conflist"), list.to_string()).unwrap();
        std::fs::write(format!("{log}.bad"), "").unwrap();
        let cni = Cni::new(settings(host)).unwrap();
        wait_for(&cni, |status| status.as_ref().is_err_and(|text| text.contains("not yet"))).await;
        std::fs::remove_file(format!("{log}.bad")).unwrap();
        wait_for(&cni, |status| status.is_ok()).await;
        let mut pod = host.pod(&[]).await;
        let limit = "kubernetes.io/egress-bandwidth".to_owned();
        pod.request.annotations.insert(limit.clone(), "10M".to_owned());
        let attachment = cni.attach(&pod.request).await.unwrap();
        assert_eq!(attachment.dns.unwrap().servers, ["9.9.9.9"]);
        cni.reconcile(&[]).await.unwrap();
        cni.detach(&pod.request, None).await.unwrap();
        let told = std::fs::read_to_string(&log).unwrap();
        let args = "ADD IgnoreUnknown=1;K8S_POD_NAMESPACE=tests;K8S_POD_NAME=pod-1;\
                    K8S_POD_INFRA_CONTAINER_ID=0101";
        assert!(told.contains(args), "{told}");
        assert!(told.contains(
            r#""runtimeConfig":{"bandwidth":{"egressBurst":2147483647,"egressRate":10000000}}"#
        ));
        assert!(told.contains(r#""cni.dev/valid-attachments":[{"containerID":"0101"#), "{told}");
        assert!(told.contains("GC") && told.contains("DEL") && told.contains("prevResult"));
        pod.request.annotations.insert(limit, "much".to_owned());
        let error = cni.attach(&pod.request).await.unwrap_err().to_string();
        assert!(error.contains("egress-bandwidth must be between"), "{error}");
    });
}
