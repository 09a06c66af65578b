//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use opossum_backends::models::{Phase, Progress};

use super::term;

/// A phase with nothing to count.
const UNCOUNTED: &str = "{prefix} {msg}";
/// A phase that counts bytes.
const COUNTED: &str = "{prefix} {msg:<12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// A bar's look; the library's own where the template were wrong.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

/// Shows one pull.
pub(super) enum Meter {
    /// On a terminal.
    Bar {
        /// The bar; redrawn by its own clock.
        bar: ProgressBar,
        /// What it shows now.
        phase: Option<Phase>,
    },
    /// Elsewhere: a line for each tenth.
    Lines {
        /// The model's name.
        name: String,
        /// Phase and tenth of the last line.
        last: Option<(Phase, u64)>,
    },
}

impl Meter {
    /// A meter on standard error.
    pub(super) fn new(name: &str) -> Self {
        if !stderr().is_terminal() {
            return Meter::Lines { name: name.to_owned(), last: None };
        }
        let bar = ProgressBar::no_length().with_prefix(name.to_owned());
        bar.set_style(style("{prefix}"));
        Meter::Bar { bar, phase: None }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, progress: Progress) {
        match self {
            Meter::Bar { bar, phase } => {
                if *phase != Some(progress.phase) {
                    *phase = Some(progress.phase);
                    bar.reset();
                    bar.set_style(style(if progress.total == 0 { UNCOUNTED } else { COUNTED }));
                    bar.set_message(word(progress.phase));
                }
                bar.set_length(progress.total);
                bar.set_position(progress.bytes);
            }
            Meter::Lines { name, last } => {
                if let Some(text) = next_line(name, last, progress) {
                    term::note(&text);
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        match self {
            Meter::Bar { bar, .. } => bar.finish_and_clear(),
            Meter::Lines { .. } => {}
        }
    }
}

/// The line that is due, if any: one for each phase and each tenth of it.
fn next_line(name: &str, last: &mut Option<(Phase, u64)>, progress: Progress) -> Option<String> {
    let tenth = (progress.bytes.saturating_mul(10)).checked_div(progress.total).unwrap_or(0);
    let now = (progress.phase, tenth);
    if *last == Some(now) {
        return None;
    }
    *last = Some(now);
    let word = word(progress.phase);
    Some(match progress.total {
        0 => format!("{name}: {word}"),
        total => format!("{name}: {word} {} % of {}", tenth * 10, HumanBytes(total)),
    })
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Locating => "locating",
        Phase::Downloading => "downloading",
        Phase::Verifying => "verifying",
        Phase::Extracting => "extracting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [UNCOUNTED, COUNTED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn plain_lines_come_once_a_tenth() {
        let mut last = None;
        let lines: Vec<_> = (0..=1000)
            .filter_map(|bytes| {
                let progress = Progress { phase: Phase::Downloading, bytes, total: 1000 };
                next_line("m", &mut last, progress)
            })
            .collect();
        assert_eq!(lines.len(), 11);
        assert_eq!(lines[10], "m: downloading 100 % of 1000 B");
        let nothing_to_count = Progress { phase: Phase::Locating, bytes: 0, total: 0 };
        assert_eq!(next_line("m", &mut last, nothing_to_count).as_deref(), Some("m: locating"));
    }
}
