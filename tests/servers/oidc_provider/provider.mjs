// An OpenID Connect provider on loopback: node provider.mjs PORT, with its settings as JSON on stdin
// ({clients, accounts, keys, extra}). Its own pages let in whoever gives an account's name, with any password.
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const { clients, accounts, keys, extra } = JSON.parse(readFileSync(0, 'utf8'));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients,
  jwks: { keys },
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
  cookies: { keys: ['of the tests'] },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  async findAccount(_ctx, id) {
    return accounts[id] && { accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) };
  },
  ...extra,
});
provider.listen(port, '127.0.0.1', () => console.log('listening'));
