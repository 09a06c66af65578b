//! Files as they are documented.

use utoipa::ToSchema;

/// A file, as a form brings it.
#[derive(Debug, ToSchema)]
pub struct FileRequest {
    /// The content, with a file name.
    #[schema(format = Binary)]
    pub file: String,
    /// Always `batch`.
    #[schema(pattern = "^batch$")]
    pub purpose: String,
    /// Always `created_at`; only with `expires_after[seconds]`.
    #[schema(rename = "expires_after[anchor]", pattern = "^created_at$")]
    pub anchor: Option<String>,
    /// For how long the file is kept; 30 days where nothing is said.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    pub seconds: Option<u64>,
}

/// A file.
#[derive(Debug, ToSchema)]
pub struct File {
    /// Its identity.
    pub id: String,
    /// Always `file`.
    #[schema(pattern = "^file$")]
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded, in seconds since the Unix epoch.
    pub created_at: i64,
    /// When it goes away by itself, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// How its owner calls it.
    pub filename: String,
    /// `batch` for what is uploaded, `batch_output` for what batches write.
    #[schema(pattern = "^batch(_output)?$")]
    pub purpose: String,
    /// Always `processed`.
    #[schema(pattern = "^processed$")]
    pub status: String,
    /// Always null.
    #[schema(required = true)]
    pub status_details: Option<String>,
}

/// A page of files.
#[derive(Debug, ToSchema)]
pub struct FileList {
    /// Always `list`.
    #[schema(pattern = "^list$")]
    pub object: String,
    /// The files.
    pub data: Vec<File>,
    /// The first one's id.
    #[schema(required = true)]
    pub first_id: Option<String>,
    /// The last one's id: the next page's `after`.
    #[schema(required = true)]
    pub last_id: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

/// A file that is gone.
#[derive(Debug, ToSchema)]
pub struct FileDeleted {
    /// Its identity.
    pub id: String,
    /// Always `file`.
    #[schema(pattern = "^file$")]
    pub object: String,
    /// Always true.
    pub deleted: bool,
}
