//! Aliases: names of the operator's choice for models behind services.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::error::{SettingsError, ensure};
use super::policy::ParamSettings;

/// `[models.ALIAS]`: a name that a request may give as its `model`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AliasSettings {
    /// What the alias stands for, best first.
    pub targets: Vec<TargetSettings>,
    /// Whether other backends may answer when no target can; such an answer is marked as degraded.
    pub reroute: bool,
}

/// One model that an alias stands for, with the parameters it is asked with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetSettings {
    /// The service's name.
    pub service: String,
    /// The model's name as that service knows it.
    pub api_name: String,
    /// Tokens to generate at most, unless the request says otherwise.
    pub max_tokens: Option<u32>,
    /// 0 to 2, unless the request says otherwise.
    pub temperature: Option<f32>,
    /// Above 0 to 1, unless the request says otherwise.
    pub top_p: Option<f32>,
    /// At least 1, unless the request says otherwise.
    pub top_k: Option<u32>,
    /// The shape of the answer, unless the request says otherwise.
    pub response_format: Option<AnswerFormat>,
    /// Multiplies the score of this target in routing; 1 by default.
    pub weight: Option<f64>,
}

/// The shape of an answer that an alias may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFormat {
    /// Plain text.
    Text,
    /// A JSON object.
    JsonObject,
}

impl AnswerFormat {
    /// Reads `text` or `json_object`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(AnswerFormat::Text),
            "json_object" => Some(AnswerFormat::JsonObject),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for AnswerFormat {
    /// Takes the bare name and the OpenAI spelling `{ type = "text" }`.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Name(String),
            Object { r#type: String },
        }
        let (Spelling::Name(name) | Spelling::Object { r#type: name }) = Spelling::deserialize(d)?;
        AnswerFormat::parse(&name).ok_or_else(|| de::Error::custom("must be text or json_object"))
    }
}

impl TargetSettings {
    /// The parameters it is asked with, where neither is set those of all requests.
    pub fn params(&self, defaults: &ParamSettings) -> ParamSettings {
        ParamSettings {
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            temperature: self.temperature.or(defaults.temperature),
            top_p: self.top_p.or(defaults.top_p),
            top_k: self.top_k.or(defaults.top_k),
        }
    }

    fn validate(&self, prefix: &str) -> Result<(), SettingsError> {
        let key = |field: &str| format!("{prefix}.{field}");
        ensure(!self.service.is_empty(), &key("service"), "is required")?;
        ensure(!self.api_name.is_empty(), &key("api_name"), "is required")?;
        let weight = self.weight.is_none_or(|w| w.is_finite() && (0.0..=1000.0).contains(&w));
        ensure(weight, &key("weight"), "must be from 0 to 1000")?;
        self.params(&ParamSettings::default()).validate(prefix)
    }
}

impl AliasSettings {
    /// Checks an alias; `services` are the names that may be meant, whether or not they are configured now.
    pub(super) fn validate(&self, alias: &str, services: &[&str]) -> Result<(), SettingsError> {
        let prefix = format!("models.{alias}");
        let good = !alias.is_empty() && alias != "auto" && !alias.contains('/');
        ensure(good, &prefix, "an alias is neither empty nor \"auto\" and has no slash")?;
        ensure(!self.targets.is_empty(), &format!("{prefix}.targets"), "must have at least one target")?;
        for (index, target) in self.targets.iter().enumerate() {
            let prefix = format!("{prefix}.targets[{index}]");
            target.validate(&prefix)?;
            let known = services.contains(&target.service.as_str());
            ensure(known, &format!("{prefix}.service"), "is not the name of a service")?;
        }
        Ok(())
    }
}
