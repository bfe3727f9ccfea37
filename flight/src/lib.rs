//! Results of jobs for any Arrow Flight client, with the credential that every client of the cluster has.
//!
//! ```text
//! client --GetFlightInfo(path ["7"])--> leader             which parts there are, and at which workers: one endpoint a part
//! client --DoGet(ticket)--------------> that worker        the part, as record batches
//! ```
//! The data goes from the worker to the client; no scheduler touches it. Nothing else of Flight is there: jobs are submitted as always. This crate has
//! what both sides need of the protocol (<https://arrow.apache.org/docs/format/Flight.html>); what a result is, they know themselves ([`Results`]).

mod asked;

pub use arrow_flight::error::FlightError;
pub use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Location, Ticket};
pub use asked::Asked;

use arrow_array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult,
    SchemaResult,
};
use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use raftwerk_proto::v1::PartTicket;
use raftwerk_transport::{PeerKind, require};
use tonic::{Request, Response, Status, Streaming};

/// A part of a result, column by column.
pub struct Part {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch, FlightError>>,
}

/// What a process knows of results: a scheduler where they are, a worker what is in them.
#[tonic::async_trait]
pub trait Results: Send + Sync + 'static {
    async fn info(&self, _asked: Asked) -> Result<FlightInfo, Status> {
        Err(Status::unimplemented("a worker knows parts only; ask a scheduler where a result is"))
    }

    async fn part(&self, _ticket: PartTicket) -> Result<Part, Status> {
        Err(Status::unimplemented("a scheduler keeps no results; connect to a location of the endpoint, which is a worker"))
    }
}

/// The service, for clients of the cluster only.
pub fn server(results: impl Results) -> FlightServiceServer<impl FlightService> {
    FlightServiceServer::new(Served(results))
}

/// Where a client finds one part: the first of `addresses` that answers.
pub fn endpoint(ticket: &PartTicket, addresses: impl IntoIterator<Item = String>) -> FlightEndpoint {
    let at = |address| Location { uri: format!("grpc+tls://{address}") };
    FlightEndpoint {
        ticket: Some(Ticket { ticket: ticket.encode_to_vec().into() }),
        location: addresses.into_iter().map(at).collect(),
        ..FlightEndpoint::default()
    }
}

struct Served<R>(R);

fn nothing_else<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("results of jobs are read here with GetFlightInfo and DoGet; everything else is done with `raftwerk`"))
}

#[tonic::async_trait]
impl<R: Results> FlightService for Served<R> {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<ActionResult, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        require(&request, &[PeerKind::Client])?;
        let descriptor = request.into_inner();
        let mut info = self.0.info(Asked::read(&descriptor)?).await?;
        info.flight_descriptor = Some(descriptor);
        Ok(Response::new(info))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        require(&request, &[PeerKind::Client])?;
        let ticket = PartTicket::decode(request.into_inner().ticket)
            .map_err(|_| Status::invalid_argument("that is no ticket of this cluster; ask for one with GetFlightInfo"))?;
        let Part { schema, batches } = self.0.part(ticket).await?;
        let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Response::new(encoded.map(|message| message.map_err(Status::from)).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("there is no handshake: who you are is said by the client certificate of the connection"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        nothing_else()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        nothing_else()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        nothing_else()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        nothing_else()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        nothing_else()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        nothing_else()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        nothing_else()
    }
}
