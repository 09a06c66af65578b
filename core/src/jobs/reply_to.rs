//! To whom a reply may go.
//!
//! A worker publishes with its own rights, so a publisher who could name any queue could have a reply put into
//! the job queues or into another tenant's hands. Allowed are names that nobody can choose for somebody else:
//! the broker's own (`amq.gen-…`, `amq.rabbitmq.reply-to.…`) and `opossum.reply.<tenant>.<word>`.

/// Queues that tenants declare for their replies begin so.
const TENANT_PREFIX: &str = "opossum.reply.";

/// Longest name of a queue, in bytes.
const LONGEST: usize = 255;

/// Whether replies of this tenant may go to this queue.
///
/// The word after the tenant holds no dot: a tenant `a` could otherwise name `opossum.reply.a.b.x`, which
/// belongs to a tenant `a.b`.
pub fn is_allowed(queue: &str, tenant: &str) -> bool {
    if queue.len() > LONGEST || queue.chars().any(char::is_control) {
        return false;
    }
    let generated = |prefix: &str| queue.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    if generated("amq.gen-") || is_direct(queue) {
        return true;
    }
    let own = queue.strip_prefix(TENANT_PREFIX).and_then(|rest| rest.strip_prefix(tenant));
    let word = own.and_then(|rest| rest.strip_prefix('.'));
    !tenant.is_empty() && word.is_some_and(|word| !word.is_empty() && !word.contains('.'))
}

/// Whether it is the broker's direct reply-to: a reply then lives no longer than its requester's channel.
pub fn is_direct(queue: &str) -> bool {
    queue.strip_prefix("amq.rabbitmq.reply-to.").is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_hears_in_its_own_queues_and_in_those_the_broker_names() {
        for queue in ["amq.gen-JzTY20BRgKO-HjmUJj0wLg", "amq.rabbitmq.reply-to.g1", "opossum.reply.acme.r1"] {
            assert!(is_allowed(queue, "acme"), "{queue}");
        }
    }

    #[test]
    fn a_reply_goes_nowhere_else() {
        for queue in [
            "",
            "opossum.jobs.normal",
            "opossum.jobs.dead",
            "opossum.reply.other.r1",
            "opossum.reply.acme",
            "opossum.reply.acme.",
            "opossum.reply.acmecorp.r1",
            "opossum.reply.acme.b.r1",
            "amq.gen-",
            "amq.rabbitmq.reply-to",
            "amq.direct",
            "opossum.reply.acme.r\u{0}",
        ] {
            assert!(!is_allowed(queue, "acme"), "{queue:?}");
        }
        assert!(!is_allowed("opossum.reply..r1", ""), "nobody is no tenant");
        assert!(!is_allowed(&format!("opossum.reply.acme.{}", "x".repeat(255)), "acme"));
    }
}
