//! What a server has, and what each of its models can do.

use futures::stream::{self, StreamExt as _};
use opossum_core::ids::ModelName;
use opossum_core::needs::Needs;

use super::{EMBED_CAN, Inner, PROTOCOL_CAN, wire};
use crate::{BackendError, UpstreamModel, json};

/// How many models are asked about at a time.
const AT_ONCE: usize = 4;

impl Inner {
    pub(super) async fn models(&self) -> Result<Vec<UpstreamModel>, BackendError> {
        let body = self.exchange(self.endpoint.get(self.tags.clone())).await?.whole().await?;
        let tags: wire::Tags<'_> = json::read(&body)?;
        let names: Vec<ModelName> = tags.models.iter().map(|model| ModelName::new(&*model.name)).collect();
        let described = stream::iter(names).map(|name| self.describe(name)).buffered(AT_ONCE);
        Ok(described.collect().await)
    }

    /// A server too old to describe its models, or that fails to, still serves them: then the protocol's
    /// abilities hold.
    async fn describe(&self, name: ModelName) -> UpstreamModel {
        match self.show(&name).await {
            Ok(shown) => UpstreamModel {
                can: abilities(shown.capabilities.as_deref()),
                context_tokens: shown.context_tokens(),
                name,
            },
            Err(error) => {
                tracing::debug!(model = %name, %error, "the server does not describe the model");
                UpstreamModel { name, can: PROTOCOL_CAN, context_tokens: None }
            }
        }
    }

    async fn show(&self, name: &ModelName) -> Result<wire::Show, BackendError> {
        let body = json::write(&wire::ShowRequest { model: name.as_str() })?;
        let request = self.endpoint.post_json(self.show.clone(), body);
        json::read(&self.exchange(request).await?.whole().await?)
    }
}

/// The protocol's abilities less those that need an ability which the model lacks.
fn abilities(capabilities: Option<&[String]>) -> Needs {
    let Some(capabilities) = capabilities else { return PROTOCOL_CAN };
    let lacks = |name: &str| !capabilities.iter().any(|capability| capability == name);
    if lacks("completion") {
        return if lacks("embedding") { Needs::empty() } else { EMBED_CAN };
    }
    let mut can = PROTOCOL_CAN;
    can.set(Needs::TOOLS, !lacks("tools"));
    can.set(Needs::IMAGES, !lacks("vision"));
    can.set(Needs::SUFFIX, !lacks("insert"));
    can.set(Needs::REASONING, !lacks("thinking"));
    can
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_follow_what_the_server_says() {
        let can = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            abilities(Some(&names))
        };
        assert_eq!(abilities(None), PROTOCOL_CAN);
        assert_eq!(can(&["embedding"]), EMBED_CAN);
        assert_eq!(can(&["rerank"]), Needs::empty());
        assert_eq!(can(&["completion", "tools", "vision", "insert", "thinking"]), PROTOCOL_CAN);
        let plain = can(&["completion"]);
        assert!(plain.contains(Needs::CHAT | Needs::STOP));
        assert!(!plain.intersects(Needs::TOOLS | Needs::IMAGES | Needs::SUFFIX | Needs::REASONING));
    }
}
