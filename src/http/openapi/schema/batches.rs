//! Batches as they are documented.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// What is wanted of a batch.
#[derive(Debug, ToSchema)]
pub struct BatchRequest {
    /// The file with the requests.
    pub input_file_id: String,
    /// What every line asks.
    #[schema(pattern = "^/v1/(chat/completions|completions|embeddings)$")]
    pub endpoint: String,
    /// Always `24h`.
    #[schema(pattern = "^24h$")]
    pub completion_window: String,
    /// The caller's own words, at most 16.
    pub metadata: Option<BTreeMap<String, String>>,
    /// How long the files with the answers are kept; 30 days where nothing is said.
    pub output_expires_after: Option<ExpiresAfter>,
}

/// How long files are kept.
#[derive(Debug, ToSchema)]
pub struct ExpiresAfter {
    /// Always `created_at`.
    #[schema(pattern = "^created_at$")]
    pub anchor: String,
    /// Seconds from then on.
    #[schema(minimum = 3600, maximum = 2_592_000)]
    pub seconds: u64,
}

/// A batch. Times are seconds since the Unix epoch.
#[derive(Debug, ToSchema)]
pub struct Batch {
    /// Its identity.
    pub id: String,
    /// Always `batch`.
    #[schema(pattern = "^batch$")]
    pub object: String,
    /// What every line asks.
    pub endpoint: String,
    /// The model that answered first, once the batch is over.
    #[schema(required = true)]
    pub model: Option<String>,
    /// What is wrong with the file.
    #[schema(required = true)]
    pub errors: Option<BatchErrors>,
    /// The file with the requests.
    pub input_file_id: String,
    /// Always `24h`.
    pub completion_window: String,
    /// Where it stands.
    pub status: BatchStatus,
    /// The file with the answers, once the batch is over and where there were any.
    #[schema(required = true)]
    pub output_file_id: Option<String>,
    /// The file with the requests that were not answered, likewise.
    #[schema(required = true)]
    pub error_file_id: Option<String>,
    /// When it was ordered.
    pub created_at: i64,
    /// Since when its requests were answered.
    #[schema(required = true)]
    pub in_progress_at: Option<i64>,
    /// When its time is up.
    pub expires_at: i64,
    /// Since when its files were written.
    #[schema(required = true)]
    pub finalizing_at: Option<i64>,
    /// When it was complete.
    #[schema(required = true)]
    pub completed_at: Option<i64>,
    /// When its file was found wrong.
    #[schema(required = true)]
    pub failed_at: Option<i64>,
    /// When it ended because its time was up.
    #[schema(required = true)]
    pub expired_at: Option<i64>,
    /// When it was called off.
    #[schema(required = true)]
    pub cancelling_at: Option<i64>,
    /// When it ended because it was called off.
    #[schema(required = true)]
    pub cancelled_at: Option<i64>,
    /// What came of how many requests.
    pub request_counts: BatchCounts,
    /// The tokens of all answers, once the batch is over.
    #[schema(required = true)]
    pub usage: Option<BatchUsage>,
    /// The caller's own words.
    #[schema(required = true)]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Where a batch stands.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum BatchStatus {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

/// What is wrong with a batch's file.
#[derive(Debug, ToSchema)]
pub struct BatchErrors {
    /// Always `list`.
    #[schema(pattern = "^list$")]
    pub object: String,
    /// At most 100 faults.
    pub data: Vec<BatchError>,
}

/// What is wrong with a line.
#[derive(Debug, ToSchema)]
pub struct BatchError {
    /// For a program.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The line's field.
    #[schema(required = true)]
    pub param: Option<String>,
    /// The line, counted from 1.
    #[schema(required = true)]
    pub line: Option<u32>,
}

/// What came of how many requests.
#[derive(Debug, ToSchema)]
pub struct BatchCounts {
    /// In the file.
    pub total: u32,
    /// Answered.
    pub completed: u32,
    /// Answered with an error.
    pub failed: u32,
}

/// The tokens of all answers, by the backends' counts.
#[derive(Debug, ToSchema)]
pub struct BatchUsage {
    /// Of the prompts.
    pub input_tokens: u64,
    /// Of these.
    pub input_tokens_details: BatchInputTokens,
    /// Of the answers.
    pub output_tokens: u64,
    /// Of these.
    pub output_tokens_details: BatchOutputTokens,
    /// Both together.
    pub total_tokens: u64,
}

/// A part of the prompts' tokens.
#[derive(Debug, ToSchema)]
pub struct BatchInputTokens {
    /// Those that backends had cached.
    pub cached_tokens: u64,
}

/// A part of the answers' tokens.
#[derive(Debug, ToSchema)]
pub struct BatchOutputTokens {
    /// Those that were thoughts.
    pub reasoning_tokens: u64,
}

/// A page of batches.
#[derive(Debug, ToSchema)]
pub struct BatchList {
    /// Always `list`.
    #[schema(pattern = "^list$")]
    pub object: String,
    /// The batches.
    pub data: Vec<Batch>,
    /// The first one's id.
    #[schema(required = true)]
    pub first_id: Option<String>,
    /// The last one's id: the next page's `after`.
    #[schema(required = true)]
    pub last_id: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}
