//! The real crictl through the lives of pods: under the built-in bridge, and
//! under Debian's CNI plugins.

use std::net::{IpAddr, SocketAddr};

use corten_tests::images::PAGE;
use corten_tests::machine::Settings;
use corten_tests::tool::{Tool, container, page, pod};
use corten_tests::{Daemon, Machine, cable, until};
use serde_json::{Value, json};

/// Where the web server's port 80 is on the machine.
const HOST_PORT: u16 = 18080;

/// Bridge, host ports and addresses by Debian's plugins.
fn debian_plugins(machine: &Machine) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "debian",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": machine.path("ipam"),
                    "ranges": [[{ "subnet": "10.77.0.0/24" }], [{ "subnet": "fd77::/64" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// What wget in a container shows, when it succeeds at last: addresses of
/// IPv6 may be tentative for a moment.
async fn fetched(crictl: &Tool, container: &str, url: &str) -> String {
    let wget = ["exec", "-s", container, "wget", "-q", "-O", "-", url];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    until(&format!("{url} is fetched"), async || {
        let output = crictl.try_run(&wget);
        // crictl ends its output with a newline of its own.
        output.status.success().then(|| format!("{}\n", text(&output.stdout).trim_end()))
    })
    .await
}

/// All addresses of a pod, as inspectp tells them.
fn addresses(crictl: &Tool, pod: &str) -> Vec<IpAddr> {
    let network = &crictl.json(&["inspectp", pod])["status"]["network"];
    let first = network["ip"].as_str().expect("a pod has an address").parse();
    let more = network["additionalIps"].as_array().into_iter().flatten();
    let more = more.filter_map(|address| address["ip"].as_str()).map(str::parse);
    std::iter::once(first).chain(more).collect::<Result<_, _>>().expect("addresses")
}

/// A pod of two containers and a second pod, each fetching the page of the
/// first one's web server; then the end of them all.
async fn pods_talk(machine: &Machine, crictl: &Tool) {
    let (nginx, busybox) = (machine.image("nginx"), machine.image("busybox"));
    for image in [&nginx, &busybox] {
        assert!(crictl.run(&["pull", image]).contains("sha256:"));
    }
    let ports = json!([{ "protocol": 0, "container_port": 80, "host_port": HOST_PORT }]);
    let web = crictl.file("web.json", &pod(machine, "web", &ports));
    let web_id = crictl.run(&["runp", &web]);
    let server = crictl.file("server.json", &container("server", &nginx, &[]));
    let server_id = crictl.run(&["create", &web_id, &server, &web]);
    crictl.run(&["start", &server_id]);
    let sleeper = container("sleeper", &busybox, &["sleep", "1000"]);
    let sleeper = crictl.file("sleeper.json", &sleeper);
    let sleeper_id = crictl.run(&["create", &web_id, &sleeper, &web]);
    crictl.run(&["start", &sleeper_id]);
    let other = crictl.file("other.json", &pod(machine, "other", &json!([])));
    // `crictl run` makes pod and container in one go.
    let visitor_id = crictl.run(&["run", &sleeper, &other]);

    assert_eq!(fetched(crictl, &sleeper_id, "http://127.0.0.1/").await, PAGE);
    let all = addresses(crictl, &web_id);
    assert!(all.iter().any(IpAddr::is_ipv4) && all.iter().any(IpAddr::is_ipv6), "{all:?}");
    for address in all {
        let address = SocketAddr::new(address, 80);
        let url = format!("http://{address}/");
        assert_eq!(fetched(crictl, &visitor_id, &url).await, PAGE);
        assert_eq!(fetched(crictl, &sleeper_id, &url).await, PAGE);
        let seen = until("the machine reaches the pod", async || page(address)).await;
        assert_eq!(seen, PAGE);
    }
    // The host port: from the machine, from another pod, from the pod itself.
    let host_port = SocketAddr::new(cable::ADDRESS.parse().unwrap(), HOST_PORT);
    assert_eq!(until("the host port answers", async || page(host_port)).await, PAGE);
    let url = format!("http://{host_port}/");
    assert_eq!(fetched(crictl, &visitor_id, &url).await, PAGE);
    assert_eq!(fetched(crictl, &sleeper_id, &url).await, PAGE);

    let resolv = crictl.run(&["exec", "-s", &sleeper_id, "cat", "/etc/resolv.conf"]);
    for line in ["nameserver 192.0.2.53", "search default.svc.cluster.local", "options ndots:5"] {
        assert!(resolv.lines().any(|seen| seen == line), "{line}: {resolv}");
    }
    assert_eq!(crictl.run(&["exec", "-s", &sleeper_id, "hostname"]), "web");

    crictl.run(&["stopp", &web_id]);
    assert_eq!(page(host_port), None, "the host port is closed with its pod");
    crictl.run(&["rmp", "-f", "-a"]);
    assert_eq!(crictl.run(&["pods", "-q"]), "");
    assert_eq!(crictl.run(&["ps", "-a", "-q"]), "");
    crictl.run(&["rmi", "-a"]);
    assert_eq!(crictl.run(&["images", "-q"]), "");
}

#[test]
fn pods_talk_under_the_built_in_bridge() {
    Machine::run(async |machine, daemon| {
        cable::plug_in();
        pods_talk(machine, &Tool::crictl(machine, daemon)).await;
        cable::unplug();
    });
}

#[test]
fn pods_talk_under_debians_plugins() {
    Machine::run_with(Settings::default(), async |machine, daemon| {
        cable::plug_in();
        let crictl = Tool::crictl(machine, daemon);
        let ready = |info: &Value, condition: &str| {
            let conditions = info["status"]["conditions"].as_array().expect("conditions");
            let found = conditions.iter().find(|found| found["type"] == condition);
            found.expect("a condition").clone()
        };
        // What installers read, before and after there is a network.
        let info = crictl.json(&["info"]);
        let network = ready(&info, "NetworkReady");
        assert_eq!(network["status"], false);
        let directory = machine.path("cni").display().to_string();
        let message = network["message"].as_str().unwrap();
        assert!(message.contains(&directory), "{message}");
        assert_eq!(ready(&info, "RuntimeReady")["status"], true);
        assert_ne!(info["lastCNILoadStatus"], "OK");
        assert_eq!(info["cniconfig"]["PluginConfDir"], json!(machine.path("cni")));
        assert_eq!(info["config"]["rootDir"], json!(machine.path("data")));

        std::fs::create_dir_all(machine.path("cni")).unwrap();
        let conflist = debian_plugins(machine).to_string();
        std::fs::write(machine.path("cni/10-debian.conflist"), conflist).unwrap();
        let info = until("the network is ready", async || {
            let info = crictl.json(&["info"]);
            (ready(&info, "NetworkReady")["status"] == true).then_some(info)
        })
        .await;
        assert_eq!(info["lastCNILoadStatus"], "OK");
        let networks = &info["cniconfig"]["Networks"];
        assert_eq!(networks[0]["Config"]["Name"], "debian", "{networks}");
        assert_eq!(networks[0]["Config"]["Plugins"][0]["Network"]["type"], "bridge");

        pods_talk(machine, &crictl).await;
        cable::ip("link del cni0");
        cable::unplug();
    });
}

#[test]
fn every_command_of_a_pods_life() {
    Machine::run(async |machine, daemon| {
        let crictl = Tool::crictl(machine, daemon);
        let version = crictl.run(&["version"]);
        assert!(version.contains("RuntimeName:  corten"), "{version}");
        assert!(version.contains("RuntimeApiVersion:  v1"), "{version}");
        images(machine, &crictl);
        life(machine, daemon, &crictl).await;
    });
}

fn images(machine: &Machine, crictl: &Tool) {
    let image = machine.image("busybox");
    crictl.run(&["pull", &image]);
    let list = crictl.json(&["images", "-o", "json"]);
    assert_eq!(list["images"][0]["repoTags"], json!([image]));
    let id = list["images"][0]["id"].as_str().unwrap();
    let status = &crictl.json(&["inspecti", id])["status"];
    assert_eq!(status["id"], id);
    assert!(status["size"].as_str().unwrap().parse::<u64>().unwrap() > 100_000);
    let used = crictl.json(&["imagefsinfo"]);
    assert!(used.to_string().contains("usedBytes"), "{used}");
    crictl.run(&["rmi", &image]);
    assert_eq!(crictl.run(&["images", "-q"]), "");
    assert!(crictl.fails(&["inspecti", &image]).contains("no such image"));
    crictl.run(&["pull", &image]);
}

async fn life(machine: &Machine, daemon: &Daemon, crictl: &Tool) {
    let image = machine.image("busybox");
    let config = pod(machine, "one", &json!([]));
    let pod_file = crictl.file("pod.json", &config);
    let script = "trap 'exit 7' TERM; echo to-stdout; echo to-stderr >&2; sleep 1000 & wait";
    let mut main = container("main", &image, &["/bin/sh", "-c", script]);
    main["envs"] = json!([{ "key": "COLOUR", "value": "rust" }]);
    main["labels"] = json!({ "part": "main" });
    let main_file = crictl.file("main.json", &main);

    let pod_id = crictl.run(&["runp", &pod_file]);
    assert!(crictl.run(&["pods"]).contains("Ready"));
    assert_eq!(crictl.run(&["pods", "-q", "--name", "one", "--state", "ready"]), pod_id);
    let id = crictl.run(&["create", &pod_id, &main_file, &pod_file]);
    assert!(crictl.run(&["ps", "-a"]).contains("Created"));
    assert_eq!(crictl.run(&["ps", "-q"]), "", "it is not running yet");
    crictl.run(&["start", &id]);
    assert_eq!(crictl.run(&["ps", "-q", "--no-trunc", "--label", "part=main"]), id);

    let inspected = crictl.json(&["inspect", &id[..12]]);
    assert_eq!(inspected["status"]["state"], "CONTAINER_RUNNING");
    assert_eq!(inspected["status"]["metadata"]["name"], "main");
    assert_eq!(inspected["status"]["image"]["userSpecifiedImage"], json!(image));
    let pid = inspected["info"]["pid"].as_u64().expect("inspect tells the pid");
    assert!(std::path::Path::new(&format!("/proc/{pid}/root")).exists());
    let inspected = crictl.json(&["inspectp", &pod_id]);
    assert_eq!(inspected["status"]["state"], "SANDBOX_READY");
    assert_eq!(inspected["status"]["labels"]["app"], "one");

    let logs = until("both lines are logged", async || {
        let output = crictl.try_run(&["logs", &id]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let both = (text(&output.stdout), text(&output.stderr));
        (both.0.contains("to-stdout") && both.1.contains("to-stderr")).then_some(both)
    })
    .await;
    assert_eq!(logs, ("to-stdout\n".to_owned(), "to-stderr\n".to_owned()));
    assert_eq!(crictl.run(&["exec", "-s", &id, "/bin/sh", "-c", "echo $COLOUR"]), "rust");
    let failed = crictl.try_run(&["exec", "-s", &id, "/bin/sh", "-c", "echo no >&2; exit 3"]);
    assert!(!failed.status.success());
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(told.contains("exited with 3: no"), "{told}");
    assert!(daemon.pid() > 0);

    crictl.run(&["stop", "--timeout", "20", &id]);
    let inspected = crictl.json(&["inspect", &id]);
    assert_eq!(inspected["status"]["state"], "CONTAINER_EXITED");
    assert_eq!(inspected["status"]["exitCode"], 7);
    crictl.run(&["rm", &id]);
    let gone = crictl.fails(&["inspect", &id]);
    assert!(gone.contains("NotFound"), "{gone}");
    crictl.run(&["stopp", &pod_id]);
    assert!(crictl.run(&["pods"]).contains("NotReady"));
    crictl.run(&["rmp", &pod_id]);
    assert_eq!(crictl.run(&["pods", "-q"]), "");
    crictl.run(&["rmi", &image]);
}
