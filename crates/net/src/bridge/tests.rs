//! The bridge, on machines made for the test.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use corten_kernel::netlink::{Family, Socket};
use corten_spec::request::{PortMapping, Protocol};

use super::*;
use crate::testing::{Host, PATIENCE, Pod, ask, inside, mapping, serve};

fn bridge(host: &Host) -> Bridge {
    Bridge::new(BridgeSettings::new(host.path("leases"))).unwrap()
}

async fn attached(host: &Host, bridge: &Bridge, ports: &[(u16, u16)]) -> (Pod, Attachment) {
    let pod = host.pod(ports).await;
    let attachment = bridge.attach(&pod.request).await.unwrap();
    (pod, attachment)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn pods_reach_each_other_and_the_world() {
    Host::run(async |host| {
        let outer = host.outside();
        serve(&outer, 80);
        let bridge = bridge(host);
        let (a, at_a) = attached(host, &bridge, &[]).await;
        let (b, at_b) = attached(host, &bridge, &[]).await;
        serve(&b.namespaces.net, 80);
        assert_eq!(at_a.ips[0].to_string(), "10.89.0.2/16");
        assert_eq!(at_b.ips[1].to_string(), "fdc0:7e4e:89::3/64");
        for (from, to) in at_a.ips.iter().zip(&at_b.ips) {
            let seen = ask(&a.namespaces.net, to.address, 80).unwrap();
            assert_eq!(seen, from.address.to_string());
            assert!(ask(&host.net, to.address, 80).is_ok());
        }
        // The world cannot answer a pod's own address.
        assert_eq!(ask(&a.namespaces.net, ip("192.0.2.2"), 80).unwrap(), "192.0.2.1");
        assert_eq!(ask(&a.namespaces.net, ip("fd99::2"), 80).unwrap(), "fd99::1");
    });
}

/// What a link has received and sent, in packets.
fn carried(host: &Host, netns: &OwnedFd, name: &str) -> (u64, u64) {
    let count = || {
        let mut socket = Socket::open(Family::Route)?;
        corten_kernel::netlink::link_counters(&mut socket, netns.as_fd())
    };
    let links = inside(&host.net, || count().unwrap());
    let link = links.into_iter().find(|link| link.name == name).unwrap();
    (link.received.packets, link.sent.packets)
}

/// The IPv6 addresses that links have by themselves.
fn of_links(netns: &OwnedFd) -> Vec<IpAddr> {
    let addresses = inside(netns, || {
        let mut socket = Socket::open(Family::Route).unwrap();
        route::addresses(&mut socket).unwrap()
    });
    let of_link = |address: &IpAddr| address.to_string().starts_with("fe80:");
    addresses.iter().map(|each| each.1).filter(of_link).collect()
}

#[test]
fn pods_of_a_network_without_ipv6_do_not_speak_it() {
    Host::run(async |host| {
        let mut settings = BridgeSettings::new(host.path("leases"));
        settings.subnets.retain(|subnet| subnet.address.is_ipv4());
        let bridge = Bridge::new(settings).unwrap();
        let (pod, at) = attached(host, &bridge, &[]).await;
        assert_eq!(at.ips.len(), 1);
        // The kernel makes them as soon as a link is up.
        assert_eq!(of_links(&pod.namespaces.net), [] as [IpAddr; 0]);
        let (_, sent) = carried(host, &pod.namespaces.net, POD_LINK);
        assert_eq!(sent, 0, "it said something to all others");
    });
}

#[test]
fn what_new_pods_say_to_all_reaches_no_other() {
    const OTHERS: usize = 8;
    Host::run(async |host| {
        let bridge = bridge(host);
        let (first, _) = attached(host, &bridge, &[]).await;
        let mut others = Vec::new();
        for _ in 0..OTHERS {
            others.push(attached(host, &bridge, &[]).await);
        }
        for (pod, at) in &others {
            // Its reports, and its first question for routers.
            let deadline = Instant::now() + Duration::from_secs(60);
            while carried(host, &pod.namespaces.net, POD_LINK).1 < 3 {
                assert!(Instant::now() < deadline, "it is silent");
                std::thread::sleep(Duration::from_millis(10));
            }
            // It has an address of the link, though nobody was asked for it.
            let own = device::link_local(device::mac(at.ips[0].address));
            assert_eq!(of_links(&pod.namespaces.net), [own]);
        }
        // The bridge and its port say something, too, once.
        let (heard, _) = carried(host, &first.namespaces.net, POD_LINK);
        assert!(heard < OTHERS as u64, "the first pod heard {heard}");
    });
}

#[test]
fn host_ports_lead_to_pods_from_everywhere() {
    Host::run(async |host| {
        let outer = host.outside();
        let bridge = bridge(host);
        let (a, at_a) = attached(host, &bridge, &[(8080, 80), (8081, 81)]).await;
        let (b, at_b) = attached(host, &bridge, &[]).await;
        serve(&a.namespaces.net, 80);
        for (address, gateway) in [("192.0.2.1", "10.89.0.1"), ("fd99::1", "fdc0:7e4e:89::1")] {
            let address = ip(address);
            let same = |net: IpAddr| net.is_ipv4() == address.is_ipv4();
            let outside = if address.is_ipv4() { "192.0.2.2" } else { "fd99::2" };
            assert_eq!(ask(&outer, address, 8080).unwrap(), outside);
            assert_eq!(ask(&host.net, address, 8080).unwrap(), address.to_string());
            // From pods, itself included, and by the gateway's address.
            for (who, net) in [("itself", &a.namespaces.net), ("other", &b.namespaces.net)] {
                let seen = ask(net, address, 8080);
                assert_eq!(
                    seen.unwrap_or_else(|error| panic!("{who} to {address}: {error}")),
                    gateway
                );
                assert!(ask(net, ip(gateway), 8080).is_ok());
            }
            assert!(at_a.ips.iter().any(|ip| same(ip.address)));
        }
        assert_eq!(ask(&host.net, ip("127.0.0.1"), 8080).unwrap(), "10.89.0.1");
        // Refused at once, and not lost: clients then try 127.0.0.1.
        let refused = ask(&host.net, ip("::1"), 8080).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // Other ports are the host's own.
        serve(&host.net, 9000);
        assert!(ask(&outer, ip("192.0.2.1"), 9000).is_ok());

        bridge.detach(&a.request, Some(&at_a)).await.unwrap();
        assert!(ask(&outer, ip("192.0.2.1"), 8080).is_err());
        let (c, at_c) = attached(host, &bridge, &[(8080, 80)]).await;
        serve(&c.namespaces.net, 80);
        // Detaching once more must not take the port from its new owner.
        bridge.detach(&a.request, Some(&at_a)).await.unwrap();
        bridge.detach(&b.request, Some(&at_b)).await.unwrap();
        assert!(ask(&outer, ip("192.0.2.1"), 8080).is_ok());
        bridge.detach(&c.request, Some(&at_c)).await.unwrap();
    });
}

#[test]
fn udp_and_bound_host_ports() {
    Host::run(async |host| {
        let outer = host.outside();
        let bridge = bridge(host);
        let mut pod = host.pod(&[]).await;
        pod.request.ports = vec![
            PortMapping { protocol: Protocol::Udp, ..mapping(5353, 53) },
            PortMapping { host_ip: "127.0.0.1".to_owned(), ..mapping(8080, 80) },
            PortMapping { host_ip: "192.0.2.1".to_owned(), ..mapping(8080, 81) },
            PortMapping { host_ip: "fd99::1".to_owned(), ..mapping(8080, 81) },
        ];
        bridge.attach(&pod.request).await.unwrap();
        serve(&pod.namespaces.net, 80);
        serve(&pod.namespaces.net, 81);
        let server = inside(&pod.namespaces.net, || UdpSocket::bind("0.0.0.0:53").unwrap());
        let client = inside(&outer, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.send_to(b"hello", "192.0.2.1:5353").unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(peer.ip(), ip("192.0.2.2"));
        server.send_to(b"world!", peer).unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 6);

        assert!(ask(&host.net, ip("127.0.0.1"), 8080).is_ok());
        assert!(ask(&outer, ip("192.0.2.1"), 8080).is_ok());
        assert!(ask(&outer, ip("fd99::1"), 8080).is_ok());
    });
}

#[test]
fn a_host_port_has_one_owner() {
    Host::run(async |host| {
        let bridge = bridge(host);
        let (first, _) = attached(host, &bridge, &[(8080, 80)]).await;
        let mut second = host.pod(&[(8080, 80)]).await;
        let fails = async |request: &NetworkRequest| {
            let error = bridge.attach(request).await.unwrap_err().to_string();
            assert_eq!(bridge.shared.leases().find(&request.sandbox), None);
            error
        };
        let error = fails(&second.request).await;
        let owner = format!(
            "unable to map host port 8080/tcp: sandbox {} (10.89.0.2) has it",
            first.request.sandbox.short()
        );
        assert_eq!(error, owner);
        second.request.ports[0].host_ip = "127.0.0.1".to_owned();
        assert_eq!(fails(&second.request).await, owner);
        second.request.ports[0].host_ip = "198.51.100.9".to_owned();
        second.request.ports[0].host_port = 8085;
        assert!(fails(&second.request).await.contains("no address 198.51.100.9"));
        second.request.ports = vec![mapping(8085, 80), mapping(8085, 81)];
        assert!(fails(&second.request).await.contains("another mapping of the same pod"));
        serve(&host.net, 9000);
        second.request.ports = vec![mapping(9000, 80)];
        assert!(fails(&second.request).await.contains("a process of this machine has it"));
        second.request.ports = vec![PortMapping { protocol: Protocol::Udp, ..mapping(8080, 80) }];
        bridge.attach(&second.request).await.unwrap();
    });
}

#[test]
fn attaching_again_and_detaching_without_a_record() {
    Host::run(async |host| {
        let bridge = bridge(host);
        let pod = host.pod(&[(8080, 80)]).await;
        serve(&pod.namespaces.net, 80);
        bridge.attach(&pod.request).await.unwrap();
        bridge.attach(&pod.request).await.unwrap();
        assert!(ask(&host.net, ip("127.0.0.1"), 8080).is_ok());
        // A daemon that begins anew knows nothing but the leases.
        let again = super::tests::bridge(host);
        host.pool.release(&pod.request.sandbox).unwrap();
        again.detach(&pod.request, None).await.unwrap();
        again.detach(&pod.request, None).await.unwrap();
        assert!(ask(&host.net, ip("127.0.0.1"), 8080).is_err());
        assert_eq!(std::fs::read_dir(host.path("leases/corten0")).unwrap().count(), 1);
        let error = bridge.attach(&pod.request).await.unwrap_err().to_string();
        assert!(error.contains("the pod's network namespace"), "{error}");
    });
}

#[test]
fn reconciling_frees_and_puts_back() {
    Host::run(async |host| {
        let (kept, at_kept) = attached(host, &bridge(host), &[(8080, 80)]).await;
        let (lost, _) = attached(host, &bridge(host), &[(8081, 80)]).await;
        serve(&kept.namespaces.net, 80);
        serve(&lost.namespaces.net, 80);
        assert!(ask(&host.net, ip("127.0.0.1"), 8081).is_ok());
        for flushed in [false, true] {
            if flushed {
                let flush = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
                assert!(flush.unwrap().success());
                assert!(ask(&host.net, ip("127.0.0.1"), 8080).is_err());
            }
            let bridge = bridge(host);
            let keep =
                Kept { sandbox: kept.request.sandbox.clone(), attachment: Some(at_kept.clone()) };
            let (fresh, _) = attached(host, &bridge, &[]).await;
            bridge.reconcile(&[keep]).await.unwrap();
            assert!(ask(&host.net, ip("127.0.0.1"), 8080).is_ok());
            assert!(ask(&host.net, ip("127.0.0.1"), 8081).is_err());
            assert!(bridge.shared.leases().find(&fresh.request.sandbox).is_some());
            assert!(bridge.shared.leases().find(&lost.request.sandbox).is_none());
            bridge.detach(&fresh.request, None).await.unwrap();
        }
    });
}

#[test]
fn a_deleted_bridge_and_fifty_pods_at_once() {
    Host::run(async |host| {
        let bridge = bridge(host);
        attached(host, &bridge, &[]).await;
        let mut socket = Socket::open(Family::Route).unwrap();
        delete_link(&mut socket, "corten0").unwrap();
        let mut pods = Vec::new();
        for number in 0..50 {
            pods.push(host.pod(&[(10000 + number, 80)]).await);
        }
        let began = Instant::now();
        let mut tasks = Vec::new();
        for pod in pods {
            let bridge = bridge.clone();
            tasks.push(tokio::spawn(async move {
                let attachment = bridge.attach(&pod.request).await.unwrap();
                (pod, attachment)
            }));
        }
        let mut addresses = HashSet::new();
        let mut last = None;
        for task in tasks {
            let (pod, attachment) = task.await.unwrap();
            assert!(addresses.insert(attachment.ips[0].address));
            last = Some(pod);
        }
        println!("50 pods with a port each, at once: {:?}", began.elapsed());
        let last = last.unwrap();
        serve(&last.namespaces.net, 80);
        assert!(ask(&host.net, ip("127.0.0.1"), last.request.ports[0].host_port).is_ok());

        for ports in [&[][..], &[(20000, 80)]] {
            let mut attach = Duration::ZERO;
            let mut detach = Duration::ZERO;
            for _ in 0..30 {
                let pod = host.pod(ports).await;
                let began = Instant::now();
                let attachment = bridge.attach(&pod.request).await.unwrap();
                attach += began.elapsed();
                let began = Instant::now();
                bridge.detach(&pod.request, Some(&attachment)).await.unwrap();
                detach += began.elapsed();
                host.pool.release(&pod.request.sandbox).unwrap();
            }
            let ports = ports.len();
            println!("{ports} ports: attach {:?}, detach {:?}", attach / 30, detach / 30);
        }
    });
}

#[test]
fn settings_that_cannot_be() {
    let settings = BridgeSettings::new(PathBuf::from("/nowhere"));
    for (name, subnets) in [
        ("a/b", vec!["10.0.0.0/8"]),
        ("sixteen-bytes-xx", vec!["10.0.0.0/8"]),
        ("br", vec![]),
        ("br", vec!["10.0.0.0/8", "10.1.0.0/16"]),
    ] {
        let subnets = subnets.iter().map(|text| text.parse().unwrap()).collect();
        let settings = BridgeSettings { name: name.to_owned(), subnets, ..settings.clone() };
        assert!(matches!(settings.check(), Err(Error::Settings(_))), "{name}");
    }
}
