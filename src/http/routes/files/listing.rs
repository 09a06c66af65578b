//! Lists that are read page by page, as the dialect does it.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, web};
use opossum_ledger::Page;
use serde::Serialize;

use crate::http::error::{ApiError, Code};

/// How many entries a page has.
#[derive(Clone, Copy)]
pub(in crate::http::routes) struct Sizes {
    /// Where nothing is said.
    pub(in crate::http::routes) usual: u32,
    /// At most.
    pub(in crate::http::routes) most: u32,
}

/// Pages of files.
pub(super) const FILES: Sizes = Sizes { usual: 10_000, most: 10_000 };

/// What a caller wants to see of a list.
pub(in crate::http::routes) struct ListQuery {
    after: Option<String>,
    limit: u32,
    newest_first: bool,
    /// Only files for this.
    pub(in crate::http::routes) purpose: Option<String>,
}

impl ListQuery {
    /// Reads `after` and `limit`, and of `order` and `purpose` those that the list has.
    ///
    /// # Errors
    /// 400 naming the parameter.
    pub(in crate::http::routes) fn read(
        req: &HttpRequest,
        more: &[&str],
        sizes: Sizes,
    ) -> Result<Self, ApiError> {
        let read = web::Query::<BTreeMap<String, String>>::from_query(req.query_string());
        let mut given = read
            .map_err(|_| ApiError::new(Code::InvalidValue, "the query string cannot be read"))?
            .into_inner();
        let after = given.remove("after").filter(|id| !id.is_empty());
        let limit = match given.remove("limit") {
            None => sizes.usual,
            Some(text) => limit(&text, sizes.most)?,
        };
        let newest_first = match given.remove("order").as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(wrong("order", "must be asc or desc")),
        };
        let purpose = if more.contains(&"purpose") { given.remove("purpose") } else { None };
        let purpose = purpose.filter(|word| !word.is_empty());
        if let Some(unknown) = given.into_keys().next() {
            return Err(ApiError::unsupported(unknown));
        }
        for (name, value) in [("after", &after), ("purpose", &purpose)] {
            if value.as_ref().is_some_and(|text| text.len() > 255 || text.contains('\0')) {
                return Err(wrong(name, "must be at most 255 bytes of text"));
            }
        }
        Ok(Self { after, limit, newest_first, purpose })
    }

    /// One more than is asked for, which tells whether there are more.
    pub(in crate::http::routes) fn page(&self) -> Page {
        Page {
            after: self.after.as_deref().map(Into::into),
            limit: self.limit + 1,
            newest_first: self.newest_first,
        }
    }
}

fn limit(text: &str, most: u32) -> Result<u32, ApiError> {
    match text.parse() {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => {
            Err(ApiError::new(Code::InvalidValue, format!("'limit' must be a whole number from 1 to {most}"))
                .with_param("limit"))
        }
    }
}

fn wrong(name: &'static str, rule: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("'{name}' {rule}")).with_param(name)
}

/// A page of a list.
#[derive(Serialize)]
pub(in crate::http::routes) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T> List<T> {
    /// What was found by the query's page.
    pub(in crate::http::routes) fn of(mut found: Vec<T>, query: &ListQuery, id: impl Fn(&T) -> &str) -> Self {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let id = |entry: Option<&T>| entry.map(|entry| id(entry).to_owned());
        let (first_id, last_id) = (id(found.first()), id(found.last()));
        Self { object: "list", data: found, first_id, last_id, has_more }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn read(query: &str) -> Result<ListQuery, ApiError> {
        let req = TestRequest::with_uri(&format!("/v1/files?{query}")).to_http_request();
        ListQuery::read(&req, &["purpose"], FILES)
    }

    #[test]
    fn a_query_is_read_and_what_is_wrong_is_named() {
        let query = read("after=file-1&limit=2&order=asc&purpose=batch").unwrap();
        assert_eq!(query.page(), Page { after: Some("file-1".into()), limit: 3, newest_first: false });
        assert_eq!(query.purpose.as_deref(), Some("batch"));
        assert!(read("").unwrap().page().newest_first);
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=10001", "limit"),
            ("limit=x", "limit"),
            ("order=up", "order"),
            ("after=a%00b", "after"),
            ("before=x", "before"),
        ] {
            assert_eq!(read(query).err().unwrap().param.as_deref(), Some(name), "{query}");
        }
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        let query = read("limit=2").unwrap();
        let list = List::of(vec!["a", "b", "c"], &query, |id| id);
        assert_eq!((list.data.len(), list.last_id.as_deref(), list.has_more), (2, Some("b"), true));
        let list = List::of(vec!["a"], &query, |id| id);
        assert_eq!((list.first_id.as_deref(), list.has_more), (Some("a"), false));
    }
}
