use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::jars::{self, kafka_folder, runs};
use crate::nodes::{self, Folder, signal};

const CLUSTER_ID: &str = "Z3Jpc3RtaWxsLXRlc3QtMQ";
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A real Apache Kafka in KRaft mode; every node is broker and controller.
#[derive(Debug)]
pub struct RealKafka {
    nodes: Vec<Node>,
    libs: PathBuf,
    // Dropped after the nodes.
    _folder: Folder,
}

#[derive(Debug)]
struct Node {
    id: usize,
    port: u16,
    password_port: u16,
    folder: PathBuf,
    process: Mutex<Option<Child>>,
}

/// The one-node cluster that all tests of a process share. `None` as [`RealKafka::start`].
pub fn shared_kafka() -> Option<&'static RealKafka> {
    static SHARED: OnceLock<Option<RealKafka>> = OnceLock::new();
    SHARED.get_or_init(|| RealKafka::start(1)).as_ref()
}

impl RealKafka {
    /// Starts a cluster of `nodes` nodes, named 1, 2, ...
    ///
    /// `None` where Java or Maven is missing, with a note to standard error, so that a developer without them
    /// can run the rest; with `CI=true` in the environment that is a failure.
    ///
    /// # Panics
    /// If the cluster cannot be started though everything is there.
    pub fn start(nodes: usize) -> Option<RealKafka> {
        Self::start_with(nodes, &[])
    }

    /// As [`RealKafka::start`], with settings of the brokers that go before ours.
    ///
    /// # Panics
    /// As [`RealKafka::start`].
    pub fn start_with(nodes: usize, settings: &[(&str, &str)]) -> Option<RealKafka> {
        let libs = match (runs("java", "-version"), jars::libs()) {
            (true, Ok(libs)) => libs,
            (java, libs) => {
                let missing =
                    if java { libs.expect_err("one is missing") } else { "java is not installed".into() };
                assert!(
                    !std::env::var("CI").is_ok_and(|v| v == "true"),
                    "no real Kafka for the tests: {missing}"
                );
                eprintln!("SKIPPED: no real Kafka: {missing}");
                return None;
            }
        };
        // Between choosing a port and listening on it, another process may take it.
        let mut failure = String::new();
        for _ in 0..3 {
            match Self::try_start(nodes, &libs, settings) {
                Ok(kafka) => return Some(kafka),
                Err(error) => failure = error,
            }
        }
        panic!("Kafka does not start: {failure}");
    }

    fn try_start(nodes: usize, libs: &Path, settings: &[(&str, &str)]) -> Result<RealKafka, String> {
        let folder = Folder::create();
        let ports = free_ports(3 * nodes);
        let (brokers, rest) = ports.split_at(nodes);
        let (controllers, passwords) = rest.split_at(nodes);
        let mut voters = String::new();
        for (i, port) in controllers.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(voters, "{comma}{}@127.0.0.1:{port}", i + 1).expect("a string takes it");
        }
        let mut list = Vec::new();
        for i in 0..nodes {
            let id = i + 1;
            let home = folder.path().join(format!("node{id}"));
            fs::create_dir_all(home.join("data")).map_err(|e| e.to_string())?;
            let ports = (brokers[i], controllers[i], passwords[i]);
            let mut properties = properties(id, nodes, ports, &voters, &home);
            // Of two lines with one key the last counts.
            for (key, value) in settings {
                writeln!(properties, "{key}={value}").expect("a string takes it");
            }
            fs::write(home.join("server.properties"), properties).map_err(|e| e.to_string())?;
            format_storage(libs, &home)?;
            let (port, password_port) = (brokers[i], passwords[i]);
            list.push(Node { id, port, password_port, folder: home, process: Mutex::new(None) });
        }
        let kafka = RealKafka { nodes: list, libs: libs.to_owned(), _folder: folder };
        for node in &kafka.nodes {
            node.launch(&kafka.libs)?;
        }
        for node in &kafka.nodes {
            node.wait_ready()?;
        }
        Ok(kafka)
    }

    /// Where clients connect to.
    pub fn bootstrap_servers(&self) -> String {
        self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)).collect::<Vec<_>>().join(",")
    }

    /// Where clients connect to that name themselves (SASL_PLAINTEXT, PLAIN): `ada`, whose password is `lovelace`, may
    /// do anything, `eve` with `polastri` what she was [allowed](Self::allow).
    pub fn password_servers(&self) -> String {
        self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.password_port)).collect::<Vec<_>>().join(",")
    }

    /// Allows a user what `kafka-acls.sh --add` takes, such as `--operation Read --topic orders`.
    ///
    /// # Panics
    /// If the tool does not do it.
    pub fn allow(&self, user: &str, what: &[&str]) {
        let output = java(&self.libs, &self.nodes[0].folder.join("tool.log"))
            .arg("org.apache.kafka.tools.AclCommand")
            .args(["--bootstrap-server", &self.bootstrap_servers(), "--add"])
            .args(["--allow-principal", &format!("User:{user}")])
            .args(what)
            .output()
            .expect("java runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{text}");
    }

    /// Moves the offset of a group without members by Kafka's own tool, as `kafka-consumer-groups.sh` does.
    ///
    /// # Panics
    /// If the tool does not do it.
    pub fn move_offset(&self, group: &str, topic: &str, partition: i32, to: i64) {
        let output = java(&self.libs, &self.nodes[0].folder.join("tool.log"))
            .arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
            .args(["--bootstrap-server", &self.bootstrap_servers(), "--group", group])
            .args(["--topic", &format!("{topic}:{partition}")])
            .args(["--reset-offsets", "--to-offset", &to.to_string(), "--execute"])
            .output()
            .expect("java runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let moved = self.committed_offsets(group, topic, partition + 1);
        assert!(output.status.success() && moved[partition as usize] == to, "{moved:?}: {text}");
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, id: usize) -> &Node {
        self.nodes.iter().find(|n| n.id == id).expect("nodes are named from 1")
    }

    /// Kills a node without warning (SIGKILL).
    ///
    /// # Panics
    /// If there is no such node, or it does not run.
    pub fn kill(&self, id: usize) {
        let mut process = self.node(id).process();
        let mut child = process.take().expect("the node runs");
        signal(&child, libc::SIGKILL);
        child.wait().expect("the child is ours");
    }

    /// Stops a node in order (SIGTERM), and waits for it.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn stop(&self, id: usize) {
        self.node(id).stop();
    }

    /// Starts a node that was killed or stopped, on the same port and data, and waits until it is ready.
    ///
    /// # Panics
    /// If there is no such node, or it does not start.
    pub fn restart(&self, id: usize) {
        let node = self.node(id);
        let _ = fs::rename(node.folder.join("server.log"), node.folder.join("server.log.before"));
        node.launch(&self.libs).and_then(|()| node.wait_ready()).expect("the node starts again");
    }

    /// Freezes a node (SIGSTOP): connections stay, nothing answers.
    ///
    /// # Panics
    /// If there is no such node, or it does not run.
    pub fn pause(&self, id: usize) {
        signal(self.node(id).process().as_ref().expect("the node runs"), libc::SIGSTOP);
    }

    /// Thaws a node.
    ///
    /// # Panics
    /// If there is no such node, or it does not run.
    pub fn resume(&self, id: usize) {
        signal(self.node(id).process().as_ref().expect("the node runs"), libc::SIGCONT);
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        // Nobody needs the data: a kill is the fastest clean end.
        for node in &self.nodes {
            if let Some(mut child) = node.process().take() {
                signal(&child, libc::SIGKILL);
                let _ = child.wait();
            }
        }
    }
}

impl Node {
    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, libs: &Path) -> Result<(), String> {
        let output = fs::File::create(self.folder.join("server.out")).map_err(|e| e.to_string())?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let mut command = java(libs, &self.folder.join("server.log"));
        command
            .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"])
            .arg("kafka.Kafka")
            .arg(self.folder.join("server.properties"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        *self.process() = Some(nodes::spawn(command).map_err(|e| format!("cannot start java: {e}"))?);
        Ok(())
    }

    /// Waits for the line that a node logs when it is registered and unfenced.
    fn wait_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_DEADLINE;
        let log = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let fail = |what: &str| {
            let tail: Vec<_> = log("server.log").lines().rev().take(15).map(str::to_owned).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            Err(format!("node {} {what}\n{}\n{tail}", self.id, log("server.out")))
        };
        loop {
            if log("server.log").contains("Kafka Server started") {
                return Ok(());
            }
            let ended = self.process().as_mut().is_none_or(|c| c.try_wait().is_ok_and(|s| s.is_some()));
            if ended {
                return fail("ended at its start");
            }
            if Instant::now() > deadline {
                return fail("was not ready in time");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&self) {
        let Some(mut child) = self.process().take() else { return };
        signal(&child, libc::SIGTERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() > deadline {
                signal(&child, libc::SIGKILL);
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// `java` with the class path and the logging, for a main class and its arguments.
fn java(libs: &Path, log: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xshare:auto", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Dlog4j2.configurationFile={}", kafka_folder().join("log4j2.xml").display()))
        .arg(format!("-Dkafka.log={}", log.display()))
        .arg("-cp")
        .arg(libs.join("*"));
    command
}

fn format_storage(libs: &Path, home: &Path) -> Result<(), String> {
    let output = java(libs, &home.join("format.log"))
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(home.join("server.properties"))
        .output()
        .map_err(|e| format!("cannot run java: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("cannot format storage: {}", String::from_utf8_lossy(&text)))
}

/// Ports that are free now, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free")).collect();
    listeners.iter().map(|l| l.local_addr().expect("it is bound").port()).collect()
}

/// `ports`: without a password, of the controller, with one.
fn properties(id: usize, nodes: usize, ports: (u16, u16, u16), voters: &str, home: &Path) -> String {
    let (port, controller, password_port) = ports;
    let replicas = nodes.min(3);
    let in_sync = if nodes < 3 { 1 } else { 2 };
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{password_port}");
    let mut text = String::new();
    let mut set = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}={value}").expect("a string takes it");
    };
    set("process.roles", &"broker,controller");
    set("node.id", &id);
    set("controller.quorum.voters", &voters);
    set("controller.listener.names", &"CONTROLLER");
    set("inter.broker.listener.name", &"PLAINTEXT");
    set("listeners", &format!("{listeners},CONTROLLER://127.0.0.1:{controller}"));
    set("advertised.listeners", &listeners);
    set(
        "listener.security.protocol.map",
        &"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
    );
    set("sasl.enabled.mechanisms", &"PLAIN");
    let users = "org.apache.kafka.common.security.plain.PlainLoginModule required user_ada=\"lovelace\" \
                 user_eve=\"polastri\";";
    set("listener.name.sasl_plaintext.plain.sasl.jaas.config", &users);
    set("authorizer.class.name", &"org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    set("super.users", &"User:ANONYMOUS;User:ada");
    set("log.dirs", &home.join("data").display());
    set("num.network.threads", &2);
    set("num.io.threads", &4);
    set("num.partitions", &4);
    set("default.replication.factor", &replicas);
    set("min.insync.replicas", &in_sync);
    for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
        set(&format!("{topic}.replication.factor"), &replicas);
        set(&format!("{topic}.num.partitions"), &4);
    }
    set("transaction.state.log.min.isr", &in_sync);
    set("share.coordinator.state.topic.min.isr", &in_sync);
    // Fast rebalances and failovers.
    set("group.initial.rebalance.delay.ms", &0);
    set("group.min.session.timeout.ms", &1000);
    set("group.consumer.min.heartbeat.interval.ms", &300);
    set("group.consumer.heartbeat.interval.ms", &300);
    set("group.consumer.min.session.timeout.ms", &3000);
    set("group.consumer.session.timeout.ms", &10000);
    set("broker.session.timeout.ms", &6000);
    // Test records have old timestamps: retention must not take them.
    set("log.retention.hours", &-1);
    set("log.cleaner.backoff.ms", &100);
    set("log.cleaner.dedupe.buffer.size", &16_777_216);
    set("log.cleaner.threads", &1);
    set("auto.create.topics.enable", &false);
    text
}
