//! The shapes of the dialect as documented types, for the OpenAPI document.
//!
//! Bodies are not read into these types nor written from them: reading remembers what was wrong where, and
//! writing goes straight to bytes. Tests hold the three together: the reader takes exactly the documented
//! fields within exactly the documented bounds, and what the writer writes is valid under these schemas.

mod either;
mod request;
mod response;

pub use either::*;
pub use request::*;
pub use response::*;
