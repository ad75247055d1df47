// Greets each name on standard input. It knows nothing of the agent.
const path = require('path');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const {Greeter} = grpc.loadPackageDefinition(loader.loadSync(path.join(__dirname, 'greeter.proto'))).greeter.v1;
const greeter = new Greeter('greeter.example:50051', grpc.credentials.createInsecure());

const details = protobuf.loadSync(path.join(__dirname, 'status.proto'));
const Status = details.lookupType('google.rpc.Status');
const ErrorInfo = details.lookupType('google.rpc.ErrorInfo');

// Why the call failed, in one word: google.rpc.ErrorInfo in the status says it,
// if whoever ended the call does.
function reason(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  const info = bytes && Status.decode(bytes).details.find((detail) => detail.type_url.endsWith('/google.rpc.ErrorInfo'));
  return info ? ErrorInfo.decode(info.value).reason : 'no reason given';
}

const sayHello = (name) => new Promise((resolve) => {
  greeter.sayHello({name}, {deadline: Date.now() + 5000}, (error, reply) =>
    resolve(error ? `${grpc.status[error.code]} (${reason(error)}): ${error.details}` : reply.message));
});

(async () => {
  for await (const name of readline.createInterface({input: process.stdin})) {
    console.log(await sayHello(name.trim()));
  }
  greeter.close();
})();
