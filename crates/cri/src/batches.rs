//! Long lists as streams: every item once, in messages of a moderate size.
//!
//! A list in one message breaks at the kubelet's 16 MB: at about 11,000
//! containers, but of metrics at about 650 pods of one container. Here an item is translated when its message is sent, so that a
//! slow client holds one message in memory, and not the list.

use corten_api::cri;
use corten_base::limits::{STREAM_BATCH_BYTES, STREAM_BATCH_ITEMS_MAX};
use prost::Message;
use tonic::Status;
use tonic::codegen::BoxStream;

/// A stream of answers.
pub type Answers<T> = BoxStream<T>;

/// A message that carries part of a list.
pub trait Batch: Send + 'static {
    /// What the list is of.
    type Item: Message;

    /// The message with these.
    fn of(items: Vec<Self::Item>) -> Self;
}

macro_rules! batches {
    ($($message:ident.$field:ident of $item:ident;)*) => {
        $(
            impl Batch for cri::$message {
                type Item = cri::$item;

                fn of($field: Vec<Self::Item>) -> Self {
                    Self { $field }
                }
            }
        )*
    };
}

batches! {
    StreamPodSandboxesResponse.pod_sandboxes of PodSandbox;
    StreamContainersResponse.containers of Container;
    StreamImagesResponse.images of Image;
    StreamContainerStatsResponse.container_stats of ContainerStats;
    StreamPodSandboxMetricsResponse.pod_sandbox_metrics of PodSandboxMetrics;
    StreamPodSandboxStatsResponse.pod_sandbox_stats of PodSandboxStats;
}

/// What `items` gives, as a stream. Nothing gives a stream without a message.
pub fn stream<B: Batch>(items: impl Iterator<Item = B::Item> + Send + 'static) -> Answers<B> {
    Box::pin(tokio_stream::iter(Batches { items, _message: std::marker::PhantomData::<fn() -> B> }))
}

struct Batches<I, B> {
    items: I,
    _message: std::marker::PhantomData<fn() -> B>,
}

impl<B: Batch, I: Iterator<Item = B::Item>> Iterator for Batches<I, B> {
    type Item = Result<B, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < STREAM_BATCH_BYTES && batch.len() < STREAM_BATCH_ITEMS_MAX {
            let Some(item) = self.items.next() else { break };
            bytes += item.encoded_len();
            batch.push(item);
        }
        (!batch.is_empty()).then(|| Ok(B::of(batch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    async fn sizes(images: Vec<cri::Image>) -> Vec<usize> {
        let answers: Answers<cri::StreamImagesResponse> = stream(images.into_iter());
        answers.map(|batch| batch.unwrap().images.len()).collect().await
    }

    #[tokio::test]
    async fn every_item_comes_once_and_nothing_is_no_message() {
        assert_eq!(sizes(Vec::new()).await, [0; 0]);
        let many = vec![cri::Image::default(); STREAM_BATCH_ITEMS_MAX + 3];
        assert_eq!(sizes(many).await, [STREAM_BATCH_ITEMS_MAX, 3]);
    }

    #[tokio::test]
    async fn large_items_make_small_batches() {
        let large = cri::Image { username: "x".repeat(STREAM_BATCH_BYTES), ..Default::default() };
        assert_eq!(sizes(vec![large; 3]).await, [1, 1, 1]);
    }
}
