//! Names that the ledger stores.

use crate::error::LedgerError;

/// The longest name of a tenant, message, worker or file in bytes; that of an AMQP short string.
const LONGEST: usize = 255;

/// Refuses names that are no names, or that PostgreSQL cannot store.
pub(crate) fn check<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), LedgerError> {
    let good = |name: &str| !name.is_empty() && name.len() <= LONGEST && !name.contains('\0');
    if names.into_iter().all(good) { Ok(()) } else { Err(LedgerError::Refused) }
}
