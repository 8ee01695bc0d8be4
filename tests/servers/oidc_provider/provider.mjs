// An OpenID Connect provider on loopback: node provider.mjs PORT, with its settings as JSON on stdin
// ({issuer, clients, accounts, keys, extra, tls}). Its own pages let in whoever gives an account's name, with any
// password. With tls, {certificate, key} in PEM form, it speaks TLS.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const { issuer, clients, accounts, keys, extra, tls } = JSON.parse(readFileSync(0, 'utf8'));

const provider = new Provider(issuer, {
  clients,
  jwks: { keys },
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
  cookies: { keys: ['of the tests'] },
  features: {
    devInteractions: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    backchannelLogout: { enabled: true },
  },
  async findAccount(_ctx, id) {
    return accounts[id] && { accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) };
  },
  // Its own would not talk to loopback, where everything is here.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  ...extra,
});
for (const event of ['backchannel.success', 'backchannel.error']) {
  provider.on(event, (_ctx, first) => console.log(event, first.message ?? ''));
}
if (tls) createServer({ cert: tls.certificate, key: tls.key }, provider.callback()).listen(port, '127.0.0.1');
else provider.listen(port, '127.0.0.1');
