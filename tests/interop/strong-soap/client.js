// The short scenario in JavaScript with the package strong-soap.

// docs: begin
const crypto = require('node:crypto');
const { soap } = require('strong-soap');

const url = process.env.CDB_SERVER;
const sha256 = (data) => crypto.createHash('sha256').update(data).digest('hex');
const open = (service) => new Promise((done, failed) => {
  soap.createClient(`${url}/cdb/v2/${service}?wsdl=plain`, {}, (error, client) => error ? failed(error) : done(client));
});
// An operation's answer, or its error.
const call = (client, operation, given) => new Promise((done, failed) => {
  client[operation](given, (error, answer) => error ? failed(error) : done(answer));
});

// Store bytes (a Buffer), to apply from a time like '2016-03-01T08:00:00.123456Z' on.
async function store(writer, device, type, validFrom, data) {
  const { calibration } = await call(writer, 'add_calibration', {
    device_name: device,
    calibration_type: type,
    valid_from: validFrom,
    data: data.toString('base64'),
    sha256: sha256(data), // the server checks it; an empty payload needs it
  });
  return calibration;
}

// The bytes, checked, of an answer such as (await call(reader, 'get_calibration_for_run', {...})).calibration.
function payloadOf(calibration) {
  const data = Buffer.from(calibration.data ?? '', 'base64');
  if (sha256(data) !== calibration.sha256) {
    throw new Error(`calibration ${calibration.id} was damaged on its way`);
  }
  return data;
}

async function connect() {
  const [reader, writer] = [await open('calibration'), await open('calibrationSuperMouse')];
  writer.setSecurity(new soap.BasicAuthSecurity(process.env.CDB_USER, process.env.CDB_TOKEN));
  return [reader, writer];
}
// docs: end

const fs = require('node:fs');
const path = require('node:path');

const [AT, BEFORE] = ['2016-03-01T08:00:00.123456Z', '2016-03-01T08:00:00.123455Z'];
const device = process.env.INTEROP_DEVICE;
const file = fs.readFileSync(path.join(process.env.INTEROP_PAYLOADS, 'binary'));

async function step(name, work) {
  let found;
  try {
    found = await work();
  } catch (error) {
    found = `${error}`;
  }
  console.log(`${name}: ${found}`.replaceAll('\n', ' ').slice(0, 400));
}

(async () => {
  const [reader, writer] = await connect();
  const applies = async (date) =>
    (await call(reader, 'get_calibration_for_date', { device_name: device, calibration_type: 'short', date })).calibration;
  await step('status', async () => (await call(reader, 'get_status', {})).status.status);
  await store(writer, device, 'short', AT, file);
  await step('bytes', async () => payloadOf(await applies(AT)).equals(file));
  await step('before', async () => applies(BEFORE));
  await step('devices', async () => {
    const listed = (await call(reader, 'list_devices', {})).device;
    return [listed].flat().some((found) => found.device_name === device);
  });
  await step('no-token', async () => {
    const nobody = await open('calibrationSuperMouse');
    return call(nobody, 'add_run', { run_number: 1, start_time: AT });
  });
})();
