//! A real RabbitMQ of a test's own: own node name, ports, folders and cookie. It ends with the test, and
//! nothing else does.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::port::PortLease;
use crate::temp::TempDir;

/// Where Debian keeps the server itself; what is on the path changes to a system user first.
const BIN: &str = "/usr/lib/rabbitmq/bin";

/// How long a broker may take to start, on a busy machine.
const START: Duration = Duration::from_secs(300);

/// The password of every user.
pub const PASSWORD: &str = "secret";

/// The users: the service's own, and two tenants.
pub const USERS: [&str; 3] = ["opossum", "acme", "mallory"];

/// How many virtual hosts there are, `v0` and on: one for each scenario of a test.
pub const VHOSTS: usize = 24;

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    dir: TempDir,
    amqp: PortLease,
    dist: PortLease,
    epmd: PortLease,
    names: Child,
    server: Option<Child>,
}

impl Broker {
    /// Starts a broker with further lines of configuration, and waits until it answers.
    ///
    /// # Panics
    /// When it is not installed or does not start, with what it logged.
    pub async fn start(config: &str) -> Self {
        let dir = TempDir::new("broker");
        let [amqp, dist, epmd] = [(); 3].map(|()| PortLease::free());
        write(&dir, "definitions.json", &definitions());
        let definitions = dir.path().join("definitions.json");
        let lines = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\nload_definitions = {}\n\
             disk_free_limit.absolute = 50MB\nlog.file.level = warning\n{config}\n",
            amqp.number(),
            definitions.display(),
        );
        write(&dir, "rabbitmq.conf", &lines);
        write(&dir, "plugins", "[].\n");
        // How often it looks at how long messages are not acknowledged; it is a minute usually.
        write(&dir, "advanced.config", "[{rabbit, [{channel_tick_interval, 1000}]}].\n");
        let names = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd.number().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd, which comes with rabbitmq-server: run scripts/test-setup.sh");
        let mut broker = Self { dir, amqp, dist, epmd, names, server: None };
        broker.restart().await;
        broker
    }

    /// The address of a virtual host, for a user.
    pub fn url(&self, user: &str, vhost: usize) -> String {
        Self::url_by(self.port(), user, vhost)
    }

    /// The same, by another port that leads there.
    pub fn url_by(port: u16, user: &str, vhost: usize) -> String {
        format!("amqp://{user}:{PASSWORD}@127.0.0.1:{port}/v{vhost}")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.amqp.number()
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal("KILL", &server);
            server.wait().ok();
        }
    }

    /// Stops it in its tracks; its sockets stay open.
    pub fn freeze(&self) {
        self.server.iter().for_each(|server| signal("STOP", server));
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.iter().for_each(|server| signal("CONT", server));
    }

    /// Starts it again with what it had on disk, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start, with what it logged.
    pub async fn restart(&mut self) {
        self.kill();
        let log = File::create(self.dir.path().join("out.log")).expect("a log");
        let mut command = Command::new(format!("{BIN}/rabbitmq-server"));
        command.envs(self.environment()).stdin(Stdio::null()).process_group(0);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.server = Some(command.spawn().expect("rabbitmq-server: run scripts/test-setup.sh"));
        let by = Instant::now() + START;
        while !answers(self.port()) {
            let ended = self.server.as_mut().is_some_and(|server| !matches!(server.try_wait(), Ok(None)));
            assert!(!ended && Instant::now() < by, "the broker did not start: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `rabbitmqctl`.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub async fn control(&self, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new(format!("{BIN}/rabbitmqctl"))
            .envs(self.environment())
            .args(arguments)
            .output()
            .await
            .expect("rabbitmqctl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Takes a quorum queue's only member away, so that it has no leader and never will, as RabbitMQ 3.10 may do
    /// itself when it is killed within a second of the queue's declaration.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn behead(&self, vhost: usize, queue: &str) {
        let member = format!("{{'v{vhost}_{queue}', '{}'}}", self.node());
        self.control(&["eval", &format!("ok = ra:force_delete_server(quorum_queues, {member}).")]).await;
    }

    fn node(&self) -> String {
        format!("opossum{}@localhost", self.port())
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let place = |name: &str| self.dir.path().join(name).display().to_string();
        vec![
            ("HOME", place("")),
            ("RABBITMQ_NODENAME", self.node()),
            ("RABBITMQ_NODE_PORT", self.port().to_string()),
            ("RABBITMQ_DIST_PORT", self.dist.number().to_string()),
            ("ERL_EPMD_PORT", self.epmd.number().to_string()),
            ("RABBITMQ_MNESIA_BASE", place("data")),
            ("RABBITMQ_LOG_BASE", place("log")),
            ("RABBITMQ_CONFIG_FILE", place("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", place("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", place("plugins")),
            ("RABBITMQ_PID_FILE", place("pid")),
            ("ERL_CRASH_DUMP", place("crash")),
            ("RABBITMQ_CONF_ENV_FILE", place("env.conf")),
            // Two schedulers that do not spin: tests run beside it.
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false +S 2:2 +sbwt none".to_owned()),
        ]
    }

    /// What it logged.
    pub fn logs(&self) -> String {
        let mut files = vec![self.dir.path().join("out.log")];
        let logs = fs::read_dir(self.dir.path().join("log"));
        files.extend(logs.into_iter().flatten().flatten().map(|entry| entry.path()));
        files.iter().map(|file: &PathBuf| fs::read_to_string(file).unwrap_or_default()).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        self.names.kill().ok();
        self.names.wait().ok();
        // The server has helpers in process groups of their own, one of which would start another `epmd`.
        for pid in descendants(self.dir.path()) {
            Command::new("kill").args(["-s", "KILL", "--", &pid]).status().ok();
        }
    }
}

/// Processes whose home is this folder, which nobody else's is.
fn descendants(home: &Path) -> Vec<String> {
    let mark = format!("HOME={}/", home.display());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|process| {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|line| line == mark.as_bytes())
    });
    ours.filter_map(|process| process.file_name().into_string().ok()).collect()
}

/// A signal to a server and what it started.
fn signal(name: &str, server: &Child) {
    let group = format!("-{}", server.id());
    Command::new("kill").args(["-s", name, "--", &group]).status().expect("kill");
}

/// Whether a broker says hello.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok();
    let mut first = [0];
    stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first[0] == 1
}

fn write(dir: &TempDir, name: &str, text: &str) {
    fs::write(dir.path().join(name), text).expect("a file of the broker");
}

fn definitions() -> String {
    let users: Vec<_> = USERS
        .iter()
        .map(|user| serde_json::json!({ "name": user, "password": PASSWORD, "tags": "" }))
        .collect();
    let hosts: Vec<_> = (0..VHOSTS).map(|n| format!("v{n}")).collect();
    let vhosts: Vec<_> = hosts.iter().map(|host| serde_json::json!({ "name": host })).collect();
    let permissions: Vec<_> = hosts
        .iter()
        .flat_map(|host| USERS.iter().map(move |user| (host, user)))
        .map(|(host, user)| {
            // The service has the rights that its documentation names.
            let [configure, write, read] = match *user {
                "opossum" => [r"^opossum\..*", r"^(opossum\..*|amq\.default)$", r"^opossum\..*"],
                _ => [".*"; 3],
            };
            serde_json::json!({
                "user": user, "vhost": host, "configure": configure, "write": write, "read": read,
            })
        })
        .collect();
    serde_json::json!({ "users": users, "vhosts": vhosts, "permissions": permissions }).to_string()
}
