//! A PostgreSQL of a test's own.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::port::PortLease;
use crate::temp::TempDir;
use crate::wait::eventually;

/// How long the server may take to start or to recover.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server on a free port of the loopback interface, in a folder of its own. Killed when dropped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: TempDir,
    port: PortLease,
    user: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Postgres {
    /// Sets a server up and starts it.
    ///
    /// `None` when PostgreSQL is not installed, so that a test can say that it did not run; with
    /// `OPOSSUM_REQUIRE_POSTGRES=1`, as in continuous integration, that is a failure instead.
    pub async fn start() -> Option<Self> {
        let mut made = Self::stopped()?;
        made.resume().await;
        Some(made)
    }

    /// Sets a server up without starting it; as [`Postgres::start`] otherwise.
    ///
    /// # Panics
    /// When `initdb` fails.
    pub fn stopped() -> Option<Self> {
        let programs = programs();
        if programs.is_none() && std::env::var("OPOSSUM_REQUIRE_POSTGRES").is_ok_and(|v| v == "1") {
            panic!("PostgreSQL is not installed, and OPOSSUM_REQUIRE_POSTGRES=1");
        }
        let dir = TempDir::new("postgres");
        let user = somebody_else();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("a folder for the server");
        }
        let made = Self { programs: programs?, dir, port: PortLease::free(), user, server: None };
        let done = made
            .command("initdb")
            .args(["--username=opossum", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .output()
            .expect("initdb runs");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        Some(made)
    }

    /// Starts the server, for the first time or again, and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with what it logged.
    pub async fn resume(&mut self) {
        let answers = eventually(START_LIMIT, async || {
            // After a kill it refuses to start until the last process of the one before has ended.
            if self.server.as_mut().is_none_or(|server| server.try_wait().is_ok_and(|end| end.is_some())) {
                self.server = Some(self.spawn());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let asked = self.tool("pg_isready").stdout(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        });
        assert!(answers.await, "{}", std::fs::read_to_string(self.log()).unwrap_or_default());
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        self.command("postgres")
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=64", "-c", "shared_buffers=16MB", "-c", "timezone=UTC"])
            .args(["-p", &self.port.number().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("postgres runs")
    }

    /// Kills the server; its children notice and end at once, whatever they were at.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Makes a database and says where it is.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// The address of a database, there or not.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://opossum@127.0.0.1:{}/{database}?sslmode=disable", self.port.number())
    }

    /// Runs a statement as the owner of everything; what it answers, without decoration.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let done = self
            .tool("psql")
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .args(["-d", database, "-c", statement])
            .output()
            .expect("psql runs");
        assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A program of the server's, as its user and in its folder.
    fn command(&self, program: &str) -> Command {
        let mut command = self.plain(program);
        command.arg("-D").arg(self.dir.path().join("data"));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A program that asks the server.
    fn tool(&self, program: &str) -> Command {
        let mut command = self.plain(program);
        command.args(["-h", "127.0.0.1", "-U", "opossum", "-p", &self.port.number().to_string()]);
        command
    }

    fn plain(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env_clear().env("LC_ALL", "C").current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(server) = self.server.as_mut() else { return };
        // Asked to quit, it ends its children before itself, so that the folder can go.
        let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
        for _ in 0..200 {
            if server.try_wait().is_ok_and(|end| end.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

/// The folder of the newest PostgreSQL's programs: where Debian or Red Hat put it, or on the path.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for base in ["/usr/lib/postgresql", "/usr"] {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = if base == "/usr" { name.strip_prefix("pgsql-") } else { Some(name.as_str()) };
            let folder = entry.path().join("bin");
            if let Some(Ok(version)) = version.map(str::parse)
                && is_complete(&folder)
            {
                found.push((version, folder));
            }
        }
    }
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.pop().map(|(_, folder)| folder).or_else(|| std::env::split_paths(&path).find(|f| is_complete(f)))
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres", "psql", "pg_isready"].iter().all(|program| folder.join(program).is_file())
}

/// The server refuses to run as root: then it runs as `postgres`, or `nobody`.
fn somebody_else() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() != 0) {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    })
}
