//! Metrics of the endpoints, read at each scrape: an endpoint that no model uses any more is not shown.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Circuit, Endpoint, Endpoints};

/// The values of an endpoint, each with the label `state` where there are several.
type Values = Vec<(Option<&'static str>, usize)>;

/// Exports the metrics of all endpoints.
#[derive(Debug)]
pub struct EndpointCollector(pub Arc<Endpoints>);

impl Collector for EndpointCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let endpoints = self.0.in_use();
        let mut family = |name, help, values: &dyn Fn(&Endpoint) -> Values| {
            let zero = ConstGauge::<i64>::new(0);
            let mut family = encoder.encode_descriptor(name, help, None, zero.metric_type())?;
            for endpoint in &endpoints {
                for (state, value) in values(endpoint) {
                    let gauge = ConstGauge::<i64>::new(i64::try_from(value).unwrap_or(i64::MAX));
                    let name = ("endpoint", endpoint.name.as_str());
                    match state {
                        Some(state) => gauge.encode(family.encode_family(&[name, ("state", state)])?)?,
                        None => gauge.encode(family.encode_family(&[name])?)?,
                    }
                }
            }
            Ok::<(), fmt::Error>(())
        };
        family(
            "chatbox_brain_endpoint_circuit",
            "State of an endpoint's circuit breaker: 1 for the one it is in",
            &|it| {
                let now = it.circuit();
                Circuit::ALL.map(|state| (Some(state.as_str()), usize::from(state == now))).into()
            },
        )?;
        family("chatbox_brain_endpoint_running", "Calls running at an endpoint", &|it| vec![(None, it.load().0)])?;
        family("chatbox_brain_endpoint_queued", "Calls queued at an endpoint", &|it| vec![(None, it.load().1)])
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::llm::endpoint::testing::WIDE;

    #[tokio::test]
    async fn each_endpoint_in_use_is_shown_with_its_state() {
        let endpoints = Arc::new(Endpoints::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(EndpointCollector(Arc::clone(&endpoints))));
        let endpoint = endpoints.get("api.example.com/v1", &WIDE);
        let place = endpoint.admit("u").await.unwrap();
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let shown = text(&registry);
        for line in [
            "chatbox_brain_endpoint_circuit{endpoint=\"api.example.com/v1\",state=\"closed\"} 1",
            "chatbox_brain_endpoint_circuit{endpoint=\"api.example.com/v1\",state=\"half_open\"} 0",
            "chatbox_brain_endpoint_running{endpoint=\"api.example.com/v1\"} 1",
            "chatbox_brain_endpoint_queued{endpoint=\"api.example.com/v1\"} 0",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        drop((place, endpoint));
        assert!(!text(&registry).contains("api.example.com"));
    }
}
