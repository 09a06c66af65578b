//! `reasoning_effort` in Gemini's terms.
//!
//! Models up to 2.5 take a budget in tokens, later ones a level. The mapping is the one Google documents for
//! its own OpenAI-compatible endpoint, with `none` and `minimal` mapped to the least that the model family
//! accepts (the Pro models cannot be told not to think).

use opossum_core::class::FailureClass;
use serde::Serialize;

use crate::BackendError;

/// `thinkingConfig` of a request: exactly one of budget and level is set.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThinkingConfig {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    include_thoughts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
}

/// What a model is, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Makes vectors and no text.
    Embedding,
    /// Gemma before its fourth generation: no system turn, no tools, no JSON mode.
    EarlyGemma,
    /// Any later Gemma.
    Gemma,
    /// Gemini 1 and 2.0, which do not think.
    Gemini2,
    /// Gemini 2.5: thinks by a budget of tokens.
    Gemini25,
    /// Gemini 3 and later, and names without a version (`gemini-flash-latest`): thinks by level and insists
    /// on thought signatures.
    Gemini3,
}

impl Family {
    /// The family of a model by its name.
    pub(super) fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        if name.contains("embedding") {
            return Family::Embedding;
        }
        if let Some(rest) = name.strip_prefix("gemma") {
            let generation = rest.trim_start_matches('-').chars().next();
            return match generation {
                Some('1'..='3') => Family::EarlyGemma,
                _ => Family::Gemma,
            };
        }
        match name.strip_prefix("gemini-") {
            Some(rest) if rest.starts_with("2.5") => Family::Gemini25,
            Some(rest) if rest.starts_with("1.") || rest.starts_with("2.") => Family::Gemini2,
            _ => Family::Gemini3,
        }
    }

    /// Whether a function call without its thought signature is refused.
    pub(super) fn wants_signatures(self) -> bool {
        self == Family::Gemini3
    }
}

/// The configuration for an effort.
///
/// # Errors
/// `CallerError` for an effort that no OpenAI dialect knows.
pub(super) fn config(effort: &str, model: &str) -> Result<ThinkingConfig, BackendError> {
    let effort = match effort {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" | "xhigh" | "max" => Effort::High,
        _ => return Err(BackendError::new(FailureClass::CallerError, "unknown reasoning_effort")),
    };
    let pro = model.contains("-pro");
    let include_thoughts = effort != Effort::None;
    Ok(match Family::of(model) {
        Family::Gemini25 => ThinkingConfig {
            include_thoughts,
            thinking_budget: Some(budget(effort, pro)),
            thinking_level: None,
        },
        _ => ThinkingConfig {
            include_thoughts,
            thinking_budget: None,
            thinking_level: Some(level(effort, pro, model.contains("gemini-3-pro"))),
        },
    })
}

/// Tokens of thought for a 2.5 model.
fn budget(effort: Effort, pro: bool) -> u32 {
    match effort {
        // 2.5 Pro thinks for at least 128 tokens.
        Effort::None if pro => 128,
        Effort::None => 0,
        Effort::Minimal | Effort::Low => 1024,
        Effort::Medium => 8192,
        Effort::High => 24576,
    }
}

/// The level for a model of generation 3 or later.
fn level(effort: Effort, pro: bool, first_pro: bool) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal if pro => "low",
        Effort::None | Effort::Minimal => "minimal",
        Effort::Low => "low",
        // The first Gemini 3 Pro knows only low and high.
        Effort::Medium if first_pro => "high",
        Effort::Medium => "medium",
        Effort::High => "high",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn json(effort: &str, model: &str) -> String {
        serde_json::to_string(&config(effort, model).unwrap()).unwrap()
    }

    #[test]
    fn older_models_get_a_budget() {
        assert_eq!(json("low", "gemini-2.5-flash"), r#"{"includeThoughts":true,"thinkingBudget":1024}"#);
        assert_eq!(json("medium", "gemini-2.5-pro"), r#"{"includeThoughts":true,"thinkingBudget":8192}"#);
        assert_eq!(json("none", "gemini-2.5-flash"), r#"{"thinkingBudget":0}"#);
        assert_eq!(json("none", "gemini-2.5-pro"), r#"{"thinkingBudget":128}"#);
    }

    #[test]
    fn newer_models_get_a_level() {
        assert_eq!(json("none", "gemini-3-flash-preview"), r#"{"thinkingLevel":"minimal"}"#);
        assert_eq!(json("minimal", "gemini-3.1-pro"), r#"{"includeThoughts":true,"thinkingLevel":"low"}"#);
        assert_eq!(
            json("medium", "gemini-3-pro-preview"),
            r#"{"includeThoughts":true,"thinkingLevel":"high"}"#
        );
        assert_eq!(
            json("medium", "gemini-flash-latest"),
            r#"{"includeThoughts":true,"thinkingLevel":"medium"}"#
        );
    }

    #[test]
    fn an_unknown_effort_is_the_callers_fault() {
        assert_eq!(config("lots", "gemini-2.5-pro").unwrap_err().class, FailureClass::CallerError);
    }

    #[test]
    fn families_by_name() {
        for (name, family) in [
            ("gemini-2.0-flash-001", Family::Gemini2),
            ("gemini-1.5-pro", Family::Gemini2),
            ("models/gemini-2.5-flash-lite", Family::Gemini25),
            ("gemini-3-pro-preview", Family::Gemini3),
            ("gemini-pro-latest", Family::Gemini3),
            ("gemma-3-27b-it", Family::EarlyGemma),
            ("gemma-4-31b-it", Family::Gemma),
        ] {
            assert_eq!(Family::of(name), family, "{name}");
        }
    }
}
