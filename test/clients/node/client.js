// Calls test.Echo at the address of argv[2], with argv[3] as authority if given.
const grpc = require('@grpc/grpc-js');

const raw = (b) => b;
const options = {'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1};
if (process.argv[3]) options['grpc.default_authority'] = process.argv[3];
const connect = (more) => new grpc.Client(process.argv[2], grpc.credentials.createInsecure(), {...options, ...more});
const client = connect({});

const within = (ms) => ({deadline: Date.now() + ms});
const meta = (pairs) => { const m = new grpc.Metadata(); for (const [k, v] of Object.entries(pairs)) m.set(k, v); return m; };
const unary = (c, body, m, o) => new Promise((resolve, reject) => {
  let trailer;
  const call = c.makeUnaryRequest('/test.Echo/Unary', raw, raw, body, m || new grpc.Metadata(), o || within(20000),
    (err, res) => err ? reject(err) : setImmediate(() => resolve({res, trailer})));
  call.on('status', (s) => { trailer = s.metadata; });
});
const collect = (call) => new Promise((resolve, reject) => {
  const got = [];
  call.on('data', (d) => got.push(d)).on('end', () => resolve(got)).on('error', reject);
});
const check = (ok, what) => { if (!ok) throw new Error(what); };
const fails = async (promise, code) => { try { await promise; } catch (e) { check(e.code === code, `code ${e.code} ${e.details}, want ${code}`); return e; } throw new Error('no error'); };

const cases = {
  unary: async () => check((await unary(client, Buffer.from('hello'))).res.equals(Buffer.from('hello')), 'another answer'),
  empty: async () => check((await unary(client, Buffer.alloc(0))).res.length === 0, 'another answer'),
  big: async () => check((await unary(client, Buffer.alloc(10 << 20, 7))).res.length === 10 << 20, 'another length'),
  server_stream: async () => {
    const got = await collect(client.makeServerStreamRequest('/test.Echo/Down', raw, raw, Buffer.from([50, 1, 2, 3]), new grpc.Metadata(), within(20000)));
    check(got.length === 50 && got.every((m) => m.length === 3), `${got.length} messages`);
  },
  client_stream: async () => {
    const res = await new Promise((resolve, reject) => {
      const call = client.makeClientStreamRequest('/test.Echo/Up', raw, raw, new grpc.Metadata(), within(20000), (err, r) => err ? reject(err) : resolve(r));
      for (let i = 0; i < 50; i++) call.write(Buffer.alloc(1000));
      call.end();
    });
    check(res.toString() === '50000', res.toString());
  },
  bidi: async () => {
    const call = client.makeBidiStreamRequest('/test.Echo/Bidi', raw, raw, new grpc.Metadata(), within(20000));
    const all = collect(call);
    for (let i = 0; i < 50; i++) call.write(Buffer.alloc(2000, i));
    call.end();
    const got = await all;
    check(got.length === 50 && got[49][0] === 49, `${got.length} messages`);
  },
  deadline: () => fails(unary(client, Buffer.from('x'), meta({'x-sleep-ms': '10000'}), within(300)), grpc.status.DEADLINE_EXCEEDED),
  cancel: () => new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest('/test.Echo/Unary', raw, raw, Buffer.from('x'), meta({'x-sleep-ms': '10000'}), within(20000),
      (err) => err && err.code === grpc.status.CANCELLED ? resolve() : reject(err || new Error('no error')));
    setTimeout(() => call.cancel(), 100);
  }),
  binary_metadata: async () => {
    const value = Buffer.from([0, 255, 10, 13]);
    const {trailer} = await unary(client, Buffer.from('x'), meta({'x-echo-bin': value}));
    check(trailer.get('x-echo-bin')[0].equals(value), 'other bytes');
  },
  status_details: async () => {
    const e = await fails(unary(client, Buffer.from('x'), meta({'x-code': '9'})), 9);
    check(e.details === 'as asked: 100 % ü' && e.metadata.get('grpc-status-details-bin')[0].length > 0, e.details);
  },
  two_channels: async () => {
    const other = connect({'grpc.use_local_subchannel_pool': 1});
    await Promise.all([unary(client, Buffer.from('a')), unary(other, Buffer.from('b'))]);
    other.close();
  },
};

(async () => {
  let failed = 0;
  for (const [name, run] of Object.entries(cases)) {
    try { await run(); console.log(`ok ${name}`); } catch (e) { failed++; console.log(`FAIL ${name} ${e.message}`); }
  }
  client.close();
  process.exit(failed ? 1 : 0);
})();
