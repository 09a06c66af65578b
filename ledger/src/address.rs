//! Where the ledger is.

use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

/// The file's name in the state folder.
const FILE: &str = "ledger.db";

/// Where the ledger is. Shown, it does not give away a password.
#[derive(Clone)]
pub struct Address {
    pub(crate) dialect: Dialect,
    url: SecretString,
}

/// Which kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// An address that cannot be used. It is not quoted, because it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme.
    #[error("must begin with postgres:// or sqlite://")]
    Scheme,
    /// `postgres://` with something that no PostgreSQL knows.
    #[error("must be postgres://user:password@host:port/database with parameters that PostgreSQL knows")]
    Malformed,
    /// `sqlite://` without a file that lasts.
    #[error("must name a file: sqlite://folder/file or sqlite:///folder/file")]
    NoFile,
    /// `sqlite://` with parameters; the ledger has its own.
    #[error("must not have parameters other than mode=rwc")]
    Parameters,
}

impl Address {
    /// Reads `postgres://…`, `postgresql://…` or `sqlite://…`, as `DATABASE_URL` holds it.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err(AddressError::Scheme) };
        match scheme {
            "postgres" | "postgresql" => {
                url.parse::<PgConnectOptions>().map_err(|_| AddressError::Malformed)?;
                Ok(Self { dialect: Dialect::Postgres, url: url.to_owned().into() })
            }
            "sqlite" => {
                let (file, parameters) = rest.split_once('?').unwrap_or((rest, "mode=rwc"));
                if file.is_empty() || file.contains(":memory:") {
                    return Err(AddressError::NoFile);
                }
                if parameters != "mode=rwc" {
                    return Err(AddressError::Parameters);
                }
                Ok(Self::sqlite(file))
            }
            _ => Err(AddressError::Scheme),
        }
    }

    /// The embedded database in the state folder.
    pub fn in_folder(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let mut escaped = String::new();
        for &byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                    escaped.push(char::from(byte));
                }
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        Self::sqlite(&escaped)
    }

    fn sqlite(file: &str) -> Self {
        Self { dialect: Dialect::Sqlite, url: format!("sqlite://{file}").into() }
    }

    /// The address for connections that write.
    pub(crate) fn url(&self) -> String {
        let url = self.url.expose_secret();
        match self.dialect {
            Dialect::Sqlite => format!("{url}?mode=rwc"),
            Dialect::Postgres => url.to_owned(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect {
            Dialect::Sqlite => write!(f, "Address({})", self.url.expose_secret()),
            Dialect::Postgres => f.write_str("Address(postgres://…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_addresses_of_a_lasting_database_are_taken() {
        for (url, error) in [
            ("mysql://x/y", AddressError::Scheme),
            ("ledger.db", AddressError::Scheme),
            ("postgres://host:port/d", AddressError::Malformed),
            ("postgres://host/d?sslmode=perhaps", AddressError::Malformed),
            ("sqlite://", AddressError::NoFile),
            ("sqlite://:memory:", AddressError::NoFile),
            ("sqlite://a.db?mode=memory", AddressError::Parameters),
        ] {
            assert_eq!(Address::parse(url).unwrap_err(), error, "{url}");
        }
        assert_eq!(Address::parse("sqlite://a.db?mode=rwc").unwrap().url(), "sqlite://a.db?mode=rwc");
        assert_eq!(Address::parse("postgresql://h/d").unwrap().dialect, Dialect::Postgres);
    }

    #[test]
    fn a_folder_may_have_any_name() {
        let address = Address::in_folder(Path::new("/tmp/a folder?#%/ü"));
        assert_eq!(address.url(), "sqlite:///tmp/a%20folder%3F%23%25/%C3%BC/ledger.db?mode=rwc");
    }

    #[test]
    fn a_password_is_not_shown() {
        let address = Address::parse("postgres://user:secret@host/db").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
    }
}
