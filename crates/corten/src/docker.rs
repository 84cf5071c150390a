//! What docker has and Corten lacks, with what to do instead.

/// What to do instead of a flag: (commands it belongs to, spellings, advice).
type FlagAdvice = (&'static [&'static str], &'static [&'static str], &'static str);

const NO_VOLUMES: &str = "there are no named volumes: keep data in a directory, -v /srv/data:/data";

const FLAGS: &[FlagAdvice] = &[
    (
        &["run"],
        &["-a", "--attach"],
        "leave it out: without -d its output is ours, and with -i our stdin is its",
    ),
    (
        &["exec"],
        &["-d", "--detach"],
        "put the command in the background by the shell in the \
        container: corten exec NAME sh -c 'command &'",
    ),
    (
        &["run"],
        &["--restart"],
        "Corten restarts nothing by itself: let systemd run \
        'corten run --rm --name NAME IMAGE' as a service with Restart=always, or let Kubernetes do it",
    ),
    (&["run"], &["--mount"], "mount a directory or file with -v /host/path:/container/path[:ro]"),
    (
        &["run"],
        &["--tmpfs"],
        "a container can mount nothing by itself: give it a directory of a \
        tmpfs of the host, -v /dev/shm/x:/tmp",
    ),
    (&["run"], &["--volumes-from"], "give both containers the same directory with -v"),
    (&["run"], &["--volume-driver"], NO_VOLUMES),
    (
        &["run"],
        &["--link", "--link-local-ip"],
        "containers on the bridge reach each other by \
        address ('corten inspect NAME' has it), or publish a port with -p",
    ),
    (
        &["run"],
        &["--net-alias", "--network-alias", "--ip", "--ip6", "--mac-address"],
        "the bridge \
        gives out addresses by itself: 'corten inspect NAME' has them, -p publishes ports",
    ),
    (&["run"], &["--net"], "it is written --network host, --network none or --network bridge"),
    (&["run"], &["-P", "--publish-all"], "name each port: -p 8080:80"),
    (
        &["run"],
        &["--expose"],
        "every port of a container is reachable on the bridge; -p 8080:80 \
        makes one reachable on the host",
    ),
    (&["run"], &["--gpus", "--device-cgroup-rule"], "devices are given to pods by Kubernetes"),
    (
        &["run"],
        &["--device"],
        "single devices cannot be given to a container yet; --privileged \
        gives all of them",
    ),
    (
        &["run"],
        &["--ulimit"],
        "containers have the daemon's limits: set LimitNOFILE= and the like \
        in cortend's unit",
    ),
    (
        &["run"],
        &["--pid", "--ipc", "--uts", "--userns", "--cgroupns", "--cgroup-parent"],
        "people's \
        containers have namespaces of their own; a pod of Kubernetes can share the host's",
    ),
    (&["run"], &["--init"], "let the image bring an init (tini, dumb-init) as its entrypoint"),
    (
        &["run"],
        &["--cpu-shares", "-c", "--cpu-period", "--cpu-quota", "--cpu-count", "--cpu-percent"],
        "limit CPU time with --cpus 1.5",
    ),
    (
        &["run"],
        &["--cpuset-cpus", "--cpuset-mems"],
        "limit CPU time with --cpus; single CPUs are \
        chosen by Kubernetes",
    ),
    (
        &["run"],
        &["--memory-swap", "--memory-swappiness", "--memory-reservation", "--kernel-memory"],
        "--memory limits memory, and swap is not used beyond it",
    ),
    (
        &["run"],
        &["--oom-kill-disable", "--oom-score-adj"],
        "leave it out: a container that goes \
        over --memory is killed, and 'corten ps -a' says so",
    ),
    (
        &["run"],
        &["--shm-size"],
        "/dev/shm has 64 MB; give a larger one with -v /dev/shm/x:/dev/shm",
    ),
    (
        &["run"],
        &["--security-opt", "--sysctl", "--group-add"],
        "it can be set for pods of \
        Kubernetes only; --cap-add, --cap-drop, --privileged and --read-only are there",
    ),
    (
        &["run"],
        &["--dns", "--dns-search", "--dns-option", "--dns-opt", "--add-host"],
        "containers \
        use the host's resolv.conf; mount files of your own with -v ./hosts:/etc/hosts:ro",
    ),
    (&["run"], &["-h"], "it is written --hostname here (-h is for help)"),
    (&["run"], &["--label-file"], "give labels one by one: -l key=value"),
    (
        &["run"],
        &["--log-driver", "--log-opt"],
        "logs are files in CRI's format: read them with \
        'corten logs NAME'",
    ),
    (
        &["run"],
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-timeout",
            "--health-start-period",
            "--no-healthcheck",
        ],
        "Corten checks no health: Kubernetes' probes \
        do, or a timer that runs 'corten exec'",
    ),
    (&["run"], &["--platform"], "images are fetched for this machine"),
    (
        &["run"],
        &["--runtime"],
        "people's containers use the default handler; pods choose one by \
        their runtime class",
    ),
    (&["run"], &["--cidfile"], "corten run -d prints the id: id=$(corten run -d …)"),
    (&["run"], &["--stop-timeout"], "give it when you stop: corten stop -t 30 NAME"),
    (
        &["run"],
        &["--sig-proxy"],
        "Ctrl-C stops a container in the foreground; -d \
        runs it in the background",
    ),
    (
        &["run"],
        &[
            "--isolation",
            "--storage-opt",
            "--disable-content-trust",
            "--blkio-weight",
            "--device-read-bps",
            "--device-write-bps",
        ],
        "leave it out",
    ),
    (
        &["ps"],
        &["-f", "--filter", "--format", "-l", "--latest", "-s", "--size"],
        "use '-o json' \
        and filter it: corten ps -a -o json | jq '.[] | select(.state == \"exited\")'",
    ),
    (
        &["images"],
        &["-f", "--filter", "--format", "--tree"],
        "use '-o json' and filter it: \
        corten images -o json | jq '.[].tags'",
    ),
    (&["images"], &["-a", "--all"], "leave it out: there are no images in between"),
    (&["inspect"], &["-f", "--format"], "the output is JSON: corten inspect NAME | jq '.[0]'"),
    (&["pull"], &["-a", "--all-tags"], "fetch one tag after the other"),
    (&["pull"], &["--platform"], "images are fetched for this machine"),
    (&["rm"], &["-v", "--volumes"], NO_VOLUMES),
    (&["rm"], &["-l", "--link"], "there are no links between containers"),
    (&["logs"], &["--until", "--details"], "leave it out"),
    (&["start"], &["-a", "--attach", "-i", "--interactive"], "start it, then 'corten attach NAME'"),
];

const COMMANDS: &[(&str, &str)] = &[
    (
        "build",
        "Corten builds no images: build with buildah or docker, and take the result in with \
        'corten load -i image.tar'",
    ),
    ("push", "write the image with 'corten save', and push it with skopeo"),
    ("login", "give the credentials when you pull: corten pull --username NAME --password-stdin"),
    ("create", "'corten run -d' makes and starts it"),
    ("restart", "'corten stop' it, then 'corten start' it"),
    ("compose", "Corten runs single containers and Kubernetes' pods"),
    ("volume", NO_VOLUMES),
    (
        "network",
        "containers are on Corten's bridge, on the host's network or on none: \
        corten run --network bridge|host|none",
    ),
    ("container", "leave the word out: corten ps, corten rm"),
    ("image", "leave the word out: corten images, corten rmi"),
    ("system", "see 'corten info' and 'corten doctor'"),
    ("import", "Corten takes in images: corten load -i image.tar"),
    ("export", "Corten writes images: corten save -o image.tar IMAGE"),
    ("help", "it is written --help, after any command"),
];

/// What to do instead of `flag` of docker's `command`.
pub fn advice(command: &str, flag: &str) -> Option<&'static str> {
    let flag = flag.split('=').next().unwrap_or(flag);
    FLAGS
        .iter()
        .find(|(commands, flags, _)| commands.contains(&command) && flags.contains(&flag))
        .map(|(_, _, advice)| *advice)
}

/// What to do instead of docker's command `name`.
pub fn command_advice(name: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(command, _)| *command == name).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn nothing_that_we_have_is_called_missing() {
        let corten = crate::cli::Arguments::command();
        for (commands, flags, _) in FLAGS {
            for command in *commands {
                let known = corten.find_subcommand(command).unwrap();
                for flag in *flags {
                    let has = known.get_arguments().any(|argument| {
                        argument.get_long().is_some_and(|long| format!("--{long}") == *flag)
                            || argument
                                .get_short()
                                .is_some_and(|short| format!("-{short}") == *flag)
                    });
                    assert!(!has, "{command} has {flag}");
                }
            }
        }
        for (name, _) in COMMANDS {
            assert!(corten.find_subcommand(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_flag_is_found_with_its_value() {
        assert!(advice("run", "--restart=always").is_some());
        assert!(advice("stop", "--restart").is_none());
    }
}
