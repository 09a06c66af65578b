//! What may be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::settings::LoadOptions;

const EXAMPLES: &str = "\
Examples:
  opossum models pull smollm2-135m-instruct   fetch the embedded model
  opossum                                     start the service on 127.0.0.1:8000
  opossum chat \"Why is the sky blue?\"         ask a running service
  opossum chat --embedded                     talk to the embedded model, without a service
  GEMINI_API_KEY=... opossum serve            start it with Gemini
  opossum jobs publish --file job.json --wait queue a request durably
  opossum config show                         what holds, and where each value came from

Exit codes: 0 good, 1 failed, 2 wrong usage, 78 bad configuration with the key named.";

const CHAT_EXAMPLES: &str = "\
Examples:
  opossum chat \"Why is the sky blue?\"
  git diff | opossum chat --system \"Review this change.\"
  opossum chat --model ollama/gemma3
  opossum chat --embedded";

const JOBS_EXAMPLES: &str = "\
Examples:
  opossum jobs publish --file job.json --wait
  echo '{\"endpoint\":\"/v1/embeddings\",\"body\":{\"model\":\"auto\",\"input\":\"x\"}}' \\
    | opossum jobs publish --file -
  opossum jobs get job_0123 --wait
  opossum jobs cancel job_0123

A job's file holds what POST /v1/jobs takes: {\"endpoint\", \"body\", \"lane\"}.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  opossum config show
  ENV=production opossum config check && echo good";

/// One service that answers LLM requests when everything around it fails.
#[derive(Debug, Parser)]
#[command(
    name = "opossum",
    version = super::version::SHORT,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub(super) struct Args {
    /// The folder of default.toml and the environments' files [default: config]
    #[arg(long, value_name = "DIR", global = true, env = "OPOSSUM_CONFIG_DIR")]
    config_dir: Option<PathBuf>,

    /// What to do; without a command, `serve`
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

impl Args {
    /// Where settings come from.
    pub(super) fn sources(&self) -> LoadOptions {
        let process = LoadOptions::from_process();
        match self.config_dir.as_ref().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => LoadOptions { config_dir: dir.clone(), config_dir_required: true, ..process },
            None => process,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the service (what no command means)
    Serve(Serve),
    /// Models for the embedded backend
    Models {
        #[command(subcommand)]
        action: Models,
    },
    /// Chat with a running service, or with the embedded model in this process
    #[command(after_help = CHAT_EXAMPLES)]
    Chat(Chat),
    /// Durable jobs at a running service
    #[command(after_help = JOBS_EXAMPLES)]
    Jobs {
        #[command(subcommand)]
        action: Jobs,
    },
    /// Show or check the configuration
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        #[command(subcommand)]
        action: Config,
    },
    /// Print the OpenAPI document
    Openapi,
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Default for Command {
    fn default() -> Self {
        Command::Serve(Serve::default())
    }
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct Serve {
    /// The address to listen on, as HOST
    #[arg(long)]
    pub(super) host: Option<String>,
    /// The port to listen on, as PORT
    #[arg(long)]
    pub(super) port: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Models {
    /// What can be pulled and what is here
    List,
    /// Fetch models by name, resuming what was broken off
    Pull {
        /// Names as `models list` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Delete a model
    Remove {
        /// Its name as `models list` shows it
        name: String,
    },
    /// Check a model file's structure and, where it is known, its SHA-256
    Verify {
        /// A file or a model's name; without it, all models that are here
        path: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Chat {
    /// What to ask; without it, standard input, or a conversation on a terminal
    pub(super) prompt: Option<String>,
    /// Answer in this process with the embedded model
    #[arg(long, conflicts_with_all = ["url", "key"])]
    pub(super) embedded: bool,
    #[command(flatten)]
    pub(super) at: At,
    /// The model: auto, an alias or service/model; with --embedded, a model or a file [default: auto]
    #[arg(long, short)]
    pub(super) model: Option<String>,
    /// Instructions that precede the conversation
    #[arg(long, short)]
    pub(super) system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tokens: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// Queue a job; prints it, with its id
    Publish {
        /// The file that holds it, or - for standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// How much time the job has, in milliseconds; 15 minutes at most
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
        timeout_ms: Option<u64>,
        /// Wait for the answer; the exit code is 1 unless it is a good one
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        at: At,
    },
    /// Print where a job stands, with its answer once there is one
    Get {
        /// Its id
        id: String,
        /// Wait for the answer; the exit code is 1 unless it is a good one
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        at: At,
    },
    /// Cancel a job that is not over; prints it
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        at: At,
    },
}

/// Which service is asked.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// The service to ask [default: this machine's, by HOST and PORT]
    #[arg(long)]
    pub(super) url: Option<String>,
    /// The key to show to the service
    #[arg(long, env = "OPOSSUM_API_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// The merged configuration, with each value's variable and origin; secrets redacted
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether the service would start
    Check,
    /// Print docs/configuration.md
    #[command(hide = true)]
    Docs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
