//! The real binary as a child process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::port::PortLease;
use crate::temp::TempDir;
use crate::upstream::Upstream;
use crate::wait::eventually;

/// How long a start may take before a test gives up on it; the promise of 2 s has a test of its own.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running service. Killed when dropped, and its folder with it.
pub struct Service {
    child: Child,
    addr: SocketAddr,
    dir: Arc<TempDir>,
    logs: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    started_in: Duration,
    builder: ServiceBuilder,
}

/// A service about to be started: an environment of its own, nothing of the caller's.
#[derive(Clone)]
pub struct ServiceBuilder {
    binary: PathBuf,
    env: BTreeMap<String, String>,
    config: BTreeMap<String, String>,
    /// Limits that the shell sets before the start, such as `-n 64`.
    limits: Vec<String>,
    dir: Option<Arc<TempDir>>,
    port: Option<Arc<PortLease>>,
}

impl ServiceBuilder {
    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets a key (`section.name`) of the service's `config/default.toml` to a value in TOML.
    #[must_use]
    pub fn set(mut self, key: &str, toml: impl std::fmt::Display) -> Self {
        self.config.insert(key.to_owned(), toml.to_string());
        self
    }

    /// Shortens what a test would otherwise wait for: 0.4 s for a first (even of a model that has to be
    /// loaded) or next token, 1.5 s in all, 20 ms before a repetition, no delay before the drain.
    #[must_use]
    pub fn quick(self) -> Self {
        self.set("upstream.first_token", 0.4)
            .set("upstream.cold_load", 0.4)
            .set("upstream.token_idle", 0.4)
            .set("upstream.total", 1.5)
            .set("server.drain_delay", 0)
            .env("DEFAULT_RETRY_DELAY", "0.02")
    }

    /// Makes the router ask this backend before all others.
    #[must_use]
    pub fn first_choice(self, name: &str) -> Self {
        self.set(&format!("policy.{name}.weight"), 1000)
    }

    /// Makes this upstream the Gemini backend, with the key `test-gemini-key`.
    #[must_use]
    pub fn gemini(self, upstream: &Upstream) -> Self {
        self.env("GEMINI_BASE_URL", upstream.base_url()).env("GEMINI_API_KEY", "test-gemini-key")
    }

    /// Makes this upstream the Ollama backend.
    #[must_use]
    pub fn ollama(self, upstream: &Upstream) -> Self {
        self.env("OLLAMA_BASE_URL", upstream.base_url())
    }

    /// Makes this upstream the backend named `openai`, with the key `test-openai-key`.
    #[must_use]
    pub fn openai(self, upstream: &Upstream) -> Self {
        self.env("OPENAI_BASE_URL", upstream.openai_base_url()).env("OPENAI_API_KEY", "test-openai-key")
    }

    /// Makes this upstream an OpenAI-compatible backend of another name.
    #[must_use]
    pub fn named(self, name: &str, upstream: &Upstream) -> Self {
        self.named_at(name, &upstream.openai_base_url(), "test-model")
    }

    /// Makes whatever is at this base an OpenAI-compatible backend that serves one model.
    #[must_use]
    pub fn named_at(self, name: &str, base_url: &str, model: &str) -> Self {
        self.set(&format!("services.{name}.kind"), "\"openai\"")
            .set(&format!("services.{name}.base_url"), format_args!("\"{base_url}\""))
            .set(&format!("services.{name}.models"), format_args!("[\"{model}\"]"))
    }

    /// Lets the embedded engine run with the model files of this folder.
    #[must_use]
    pub fn embedded(self, models: &Path) -> Self {
        self.env("TRANSFORMERS_ENABLED", "true").env("QUANTIZED_MODEL_DIR", models.display())
    }

    /// Limits the number of open files.
    #[must_use]
    pub fn open_files(mut self, limit: u32) -> Self {
        self.limits.push(format!("-n {limit}"));
        self
    }

    /// Limits the size of every file it writes, in blocks of 512 bytes; a write beyond fails, as on a full disk.
    #[must_use]
    pub fn file_blocks(mut self, limit: u32) -> Self {
        self.limits.push(format!("-S -f {limit}"));
        self
    }

    /// Limits the address space, in KiB.
    #[must_use]
    pub fn address_space_kib(mut self, limit: u64) -> Self {
        self.limits.push(format!("-v {limit}"));
        self
    }

    /// Lets the embedded engine run this model file.
    #[must_use]
    pub fn embedded_file(self, model: &Path) -> Self {
        let folder = model.parent().unwrap_or(model).to_owned();
        self.embedded(&folder)
            .env("TRANSFORMERS_MODEL", model.display())
            .env("TRANSFORMERS_EMBEDDING_MODEL", "none")
    }

    /// Listens on this port, whoever has it, instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(Arc::new(PortLease::unleased(port)));
        self
    }

    /// Starts the service and waits until it is alive.
    ///
    /// # Panics
    /// When it does not start, with what it logged.
    pub async fn start(self) -> Service {
        let mut tries = 3;
        loop {
            let mut service = self.spawn();
            match service.alive().await {
                Ok(()) => return service,
                // Somebody outside the tests took the port between the choice and the bind.
                Err(_) if tries > 1 && service.logs().to_lowercase().contains("in use") => tries -= 1,
                Err(why) => panic!("{why}; it said:\n{}", service.logs()),
            }
        }
    }

    /// Runs the service when it is expected to refuse to start: its exit status and what it said.
    pub async fn refused(self) -> (ExitStatus, String) {
        let mut service = self.spawn();
        let status = service.wait_exit(START_LIMIT).await;
        let logs = service.logs();
        (status.unwrap_or_else(|| panic!("it started; it said:\n{logs}")), logs)
    }

    fn spawn(&self) -> Service {
        let dir = self.dir.clone().unwrap_or_else(|| Arc::new(TempDir::new("service")));
        if !self.config.is_empty() {
            std::fs::create_dir_all(dir.path().join("config")).expect("a folder for the configuration");
            let toml: String = self.config.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            std::fs::write(dir.path().join("config/default.toml"), toml).expect("a configuration");
        }
        let lease = self.port.clone().unwrap_or_else(|| Arc::new(PortLease::free()));
        let port = lease.number();
        let mut child = self.command(&dir, port).spawn().expect("the service's binary runs");
        let logs = Arc::new(Mutex::new(String::new()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        let readers = pipes.into_iter().flatten().map(|pipe| collect(pipe, &logs)).collect();
        let builder = ServiceBuilder { dir: Some(Arc::clone(&dir)), port: Some(lease), ..self.clone() };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Service { child, addr, dir, logs, readers, started_in: Duration::ZERO, builder }
    }

    fn command(&self, dir: &TempDir, port: u16) -> Command {
        let mut command = if self.limits.is_empty() {
            Command::new(&self.binary)
        } else {
            // Without the trap, the signal of too large a file would end the process.
            let mut limits = "trap '' XFSZ; ".to_owned();
            limits.extend(self.limits.iter().map(|limit| format!("ulimit {limit}; ")));
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(format!("{limits}exec \"$0\" \"$@\"")).arg(&self.binary);
            shell
        };
        command
            .arg("serve")
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", dir.path())
            .env("PORT", port.to_string())
            .env("STATE_DIR", dir.path().join("state"))
            .envs(&self.env)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Service {
    /// The service of a binary (`env!("CARGO_BIN_EXE_opossum")`), without any backend: development
    /// environment, loopback, the embedded engine off, plain logs at `info`.
    pub fn of(binary: &str) -> ServiceBuilder {
        let base = ServiceBuilder {
            binary: PathBuf::from(binary),
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            limits: Vec::new(),
            dir: None,
            port: None,
        };
        base.env("ENV", "development")
            .env("HOST", "127.0.0.1")
            .env("LOG_LEVEL", "info")
            .env("NO_COLOR", "1")
            .env("TRANSFORMERS_ENABLED", "false")
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// Waits until the monitor has seen each of these backends available.
    ///
    /// # Panics
    /// When one is not within 10 s, with the health that was last seen.
    pub async fn settled(&self, backends: &[&str]) -> &Self {
        let client = self.client();
        let mut health = serde_json::Value::Null;
        let all = eventually(Duration::from_secs(10), async || {
            health = client.health(true).await;
            let states = &health["services"]["model_backends"];
            backends.iter().all(|name| states[name] == "available")
        });
        assert!(all.await, "{backends:?} are not all available: {health:#}");
        self
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// From the start of the process to the first answer of `/health/live`.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Its working folder; the state folder is `state` in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All that it wrote to its standard output and error so far.
    pub fn logs(&self) -> String {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Largest resident memory so far, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Its address space, in KiB.
    pub fn address_space_kib(&self) -> u64 {
        self.status_kib("VmSize:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").trim().parse().expect("kilobytes")
    }

    /// Number of its open file descriptors.
    pub fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a live process").count()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{name} {}", self.pid());
    }

    /// Lifts the limit on the size of its files.
    ///
    /// # Panics
    /// When that is not allowed.
    pub fn lift_file_limit(&self) {
        let status =
            Command::new("prlimit").args(["--pid", &self.pid().to_string(), "--fsize=unlimited"]).status();
        assert!(status.is_ok_and(|status| status.success()), "prlimit --fsize=unlimited");
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours to kill");
        self.child.wait().expect("the child is ours to wait for");
    }

    /// Waits for it to exit by itself.
    pub async fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours to wait for") {
                // The pipes are at their end now, so that the logs are complete.
                for reader in self.readers.drain(..) {
                    reader.join().expect("the log reader ends well");
                }
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again in the same folder, at the same address, after it was killed or has exited.
    pub async fn restart(mut self) -> Service {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
        self.builder.clone().start().await
    }

    async fn alive(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let client = self.client().limit(Duration::from_secs(2));
        loop {
            if let Some(status) = self.wait_exit(Duration::ZERO).await {
                return Err(format!("the service exited with {status}"));
            }
            if client.try_call("GET", "/health/live", None).await.is_ok_and(|a| a.status == 200) {
                self.started_in = started.elapsed();
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("the service is not alive after {START_LIMIT:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Service {
    #[expect(clippy::print_stderr, reason = "the log of a service is what explains a failed test")]
    fn drop(&mut self) {
        // Fails only when it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}---", self.logs());
        }
    }
}

fn collect(pipe: Box<dyn Read + Send>, logs: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let logs = Arc::clone(logs);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut logs = logs.lock().unwrap_or_else(PoisonError::into_inner);
            // Writing to a String cannot fail.
            let _ = writeln!(logs, "{}", String::from_utf8_lossy(&line));
        }
    })
}
