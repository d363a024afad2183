//! What nodes stand in: namespaces and cables, disks, and programs of the system's that make calls fail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::RigError;
use crate::plan::Abilities;
use crate::streets::Streets;

/// The small disk, in bytes: with 32 MiB a log of 1 MiB files and a few minutes of writes fit beside the 4 MiB
/// that a store leaves free.
const DISK_BYTES: u64 = 32 << 20;
/// Length of a log file on the small disk.
const SMALL_LOG_FILE_BYTES: u64 = 1 << 20;
const BALLAST: &str = "ballast";
const BALLAST_CHUNK_BYTES: usize = 64 << 10;
/// How long a tracer may take to see that its process is dead.
const TRACER_TIME_MAX: Duration = Duration::from_secs(2);
const FILTER_TABLE: &str = "rig";

/// How many nodes there are and what they stand in.
pub struct Lab {
    /// What begins the names of everything that is made outside of `directory`.
    pub tag: String,
    /// Holds everything that is made on disk.
    pub directory: PathBuf,
    /// Nodes.
    pub nodes: usize,
    /// What can be injected here.
    pub abilities: Abilities,
    made: Vec<String>,
    mounted: Option<PathBuf>,
}

impl Lab {
    /// Makes the namespaces and the small disk.
    ///
    /// # Errors
    /// [`RigError`]; what was made by then is removed again.
    pub fn set_up(tag: &str, directory: &Path, nodes: usize, abilities: Abilities) -> Result<Self, RigError> {
        // Not one that is there: replicas would find what another run left.
        std::fs::create_dir(directory).map_err(RigError::path(directory))?;
        let directory = directory.canonicalize().map_err(RigError::path(directory))?;
        let mut lab =
            Self { tag: tag.to_owned(), directory, nodes, abilities, made: Vec::new(), mounted: None };
        if abilities.namespaces {
            lab.lay_cables()?;
        }
        if abilities.disk {
            lab.mount_disk()?;
        }
        Ok(lab)
    }

    /// The addresses in use.
    pub fn streets(&self) -> Streets {
        if self.abilities.namespaces { Streets::NAMESPACES } else { Streets::LOOPBACK }
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.tag)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    fn lay_cables(&mut self) -> Result<(), RigError> {
        let (hub, streets) = (self.hub(), self.streets());
        self.add_namespace(&hub)?;
        for node in 0..self.nodes {
            let (name, port) = (self.namespace(node), format!("v{node}"));
            self.add_namespace(&name)?;
            tool(
                "ip",
                &["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "net", "netns", &name],
            )?;
            let mut lines = format!("addr add {}/24 dev {port}\nlink set {port} up\n", streets.hub(node));
            for seen in (0..self.nodes).filter(|seen| *seen != node) {
                lines.push_str(&format!("addr add {}/24 dev {port}\n", streets.gate(node, seen)));
            }
            tool_with("ip", &["-n", &hub, "-batch", "-"], &lines)?;
            let lines = format!("addr add {}/24 dev net\nlink set net up\n", streets.node(node));
            tool_with("ip", &["-n", &name, "-batch", "-"], &lines)?;
        }
        Ok(())
    }

    fn add_namespace(&mut self, name: &str) -> Result<(), RigError> {
        tool("ip", &["netns", "add", name])?;
        self.made.push(name.to_owned());
        tool("ip", &["-n", name, "link", "set", "lo", "up"])
    }

    fn mount_disk(&mut self) -> Result<(), RigError> {
        let (image, point) = (self.directory.join("disk.img"), self.directory.join("disk"));
        let file = std::fs::File::create(&image).map_err(RigError::path(&image))?;
        file.set_len(DISK_BYTES).map_err(RigError::path(&image))?;
        std::fs::create_dir_all(&point).map_err(RigError::path(&point))?;
        tool("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)])?;
        tool("mount", &["-o", "loop", &text(&image), &text(&point)])?;
        self.mounted = Some(point);
        Ok(())
    }

    /// The node on the small disk.
    pub fn small_disk_node(&self) -> Option<usize> {
        self.abilities.disk.then(|| self.nodes - 1)
    }

    /// Where a node keeps its data.
    pub fn data(&self, node: usize) -> PathBuf {
        match &self.mounted {
            Some(point) if self.small_disk_node() == Some(node) => point.join("data"),
            _ => self.directory.join(format!("data-{node}")),
        }
    }

    /// Where a node's standard error goes.
    pub fn log(&self, node: usize) -> PathBuf {
        self.directory.join(format!("node-{node}.log"))
    }

    fn strace_log(&self, node: usize) -> PathBuf {
        self.directory.join(format!("strace-{node}.log"))
    }

    /// Whether the last process of the node that was to have a sync fail had one. Ask when it is dead: waits
    /// until its tracer has written that down.
    pub fn has_failed_sync(&self, node: usize) -> bool {
        let asked = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.strace_log(node)).unwrap_or_default();
            let is_complete =
                log.lines().last().is_some_and(|line| line.ends_with("+++ killed by SIGKILL +++"));
            if log.contains("(INJECTED)") || is_complete || asked.elapsed() > TRACER_TIME_MAX {
                return log.contains("(INJECTED)");
            }
            std::thread::yield_now();
        }
    }

    fn inside(&self, namespace: &str) -> Vec<String> {
        match self.abilities.namespaces {
            true => ["ip", "netns", "exec", namespace].map(ToOwned::to_owned).to_vec(),
            false => Vec::new(),
        }
    }

    /// Starts a node, of which the given sync fails.
    ///
    /// # Errors
    /// [`RigError`] when this program does not know where it is.
    pub fn node_command(&self, node: usize, failing_sync: Option<u64>) -> Result<Command, RigError> {
        let mut words = self.inside(&self.namespace(node));
        if let Some(when) = failing_sync {
            let inject = format!("inject=fdatasync:error=EIO:when={when}");
            let log = text(&self.strace_log(node));
            let strace =
                ["strace", "-D", "-f", "--seccomp-bpf", "-o", &log, "-e", "trace=fdatasync", "-e", &inject];
            words.extend(strace.map(ToOwned::to_owned));
        }
        words.push(own_program()?);
        let listen = self.streets().listens(node).to_string();
        let (data, number, nodes) = (text(&self.data(node)), node.to_string(), self.nodes.to_string());
        words.extend(["node", "--data", &data, "--listen", &listen].map(ToOwned::to_owned));
        words.extend(["--node", &number, "--nodes", &nodes].map(ToOwned::to_owned));
        if self.small_disk_node() == Some(node) {
            words.extend(["--log-file-bytes".to_owned(), SMALL_LOG_FILE_BYTES.to_string()]);
        }
        Ok(command(&words))
    }

    /// Starts the shaper.
    ///
    /// # Errors
    /// As [`Lab::node_command`].
    pub fn shaper_command(&self, seed: u64) -> Result<Command, RigError> {
        let mut words = self.inside(&self.hub());
        words.push(own_program()?);
        let (seed, nodes) = (seed.to_string(), self.nodes.to_string());
        words.extend(["shape", "--seed", &seed, "--nodes", &nodes].map(ToOwned::to_owned));
        if self.abilities.namespaces {
            words.push("--namespaces".to_owned());
        }
        Ok(command(&words))
    }

    /// Takes a node's network interface down, or up again.
    ///
    /// # Errors
    /// [`RigError::Tool`].
    pub fn plug(&self, node: usize, is_up: bool) -> Result<(), RigError> {
        let state = if is_up { "up" } else { "down" };
        tool("ip", &["-n", &self.namespace(node), "link", "set", "net", state])
    }

    /// Makes a node's kernel drop packets.
    ///
    /// # Errors
    /// [`RigError::Tool`].
    pub fn filter(&self, node: usize, inbound: bool, percent: u64) -> Result<(), RigError> {
        let (hook, device) = if inbound { ("input", "iifname") } else { ("output", "oifname") };
        let chance =
            if percent < 100 { format!("numgen random mod 100 < {percent} ") } else { String::new() };
        let rules = format!(
            "table inet {FILTER_TABLE} {{ chain faults {{ type filter hook {hook} priority 0; \
             {device} \"net\" {chance}drop; }}; }}\n"
        );
        tool_with("ip", &["netns", "exec", &self.namespace(node), "nft", "-f", "-"], &rules)
    }

    /// Drops nothing any more.
    ///
    /// # Errors
    /// [`RigError::Tool`].
    pub fn unfilter(&self, node: usize) -> Result<(), RigError> {
        let namespace = self.namespace(node);
        tool("ip", &["netns", "exec", &namespace, "nft", "delete", "table", "inet", FILTER_TABLE])
    }

    /// Fills the small disk until less than so many bytes are free.
    ///
    /// # Errors
    /// [`RigError::Io`] when anything but a full disk stops it.
    pub fn fill_disk(&self, leave_bytes: u64) -> Result<(), RigError> {
        let Some(point) = &self.mounted else { return Ok(()) };
        let path = point.join(BALLAST);
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let mut file = opened.map_err(RigError::path(&path))?;
        // The last bytes are taken one block after the other.
        for chunk in [BALLAST_CHUNK_BYTES, 512] {
            let zeros = vec![0; chunk];
            while leave_bytes == 0 || free_bytes(point)? >= leave_bytes {
                match file.write(&zeros).and_then(|_| file.sync_all()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(RigError::path(&path)(error)),
                }
            }
        }
        Ok(())
    }

    /// Frees what filled the small disk.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn free_disk(&self) -> Result<(), RigError> {
        let Some(point) = &self.mounted else { return Ok(()) };
        let path = point.join(BALLAST);
        std::fs::remove_file(&path).map_err(RigError::path(&path))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.made {
            said(tool("ip", &["netns", "del", name]));
        }
        if let Some(point) = &self.mounted {
            said(tool("umount", &[&text(point)]));
        }
    }
}

fn free_bytes(point: &Path) -> Result<u64, RigError> {
    let found = rustix::fs::statvfs(point).map_err(|error| RigError::path(point)(error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Cleaning up goes on whatever fails.
fn said(result: Result<(), RigError>) {
    if let Err(error) = result {
        eprintln!("{error}");
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn own_program() -> Result<String, RigError> {
    std::env::current_exe().map(|path| text(&path)).map_err(RigError::io("the path of this program"))
}

fn command(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), RigError> {
    tool_with(program, arguments, "")
}

fn tool_with(program: &str, arguments: &[&str], input: &str) -> Result<(), RigError> {
    let line = format!("{program} {}", arguments.join(" "));
    let failed = |said: String| RigError::Tool { command: line.clone(), said };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read everything says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
