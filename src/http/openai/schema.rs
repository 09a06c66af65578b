//! The shapes of the dialect as documented types, for the OpenAPI document.
