// The viewer's settings: one archive, that of this origin, and nobody else is asked for anything.
window.config = {
  name: 'dicomwatchd',
  routerBasename: '/',
  extensions: [],
  modes: [],
  // Its introduction of itself would lie over the first study.
  customizationService: [{ 'ohif.tours': { $set: [] } }],
  whiteLabeling: {
    createLogoComponentFn: React =>
      React.createElement('a', { href: '/', title: 'All studies', className: 'text-primary ml-1' }, '‹ Studies'),
  },
  // Studies are searched on the program's own page.
  showStudyList: false,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  allowMultiSelectExport: false,
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  // That the viewer is for investigational use: shown to each person, who may hide it for 30 days.
  investigationalUseDialog: { option: 'configure', days: 30 },
  defaultDataSourceName: 'archive',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'archive',
      configuration: {
        friendlyName: 'dicomwatchd',
        name: 'archive',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        supportsReject: false,
        supportsStow: false,
        dicomUploadEnabled: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        staticWado: false,
        singlepart: 'bulkdata,pdf,video',
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};

// The log-in has ended: the page, asked for anew, leads there. The viewer itself tells nobody of an answer of 401.
(() => {
  const key = 'dicomwatchd-log-in';
  const seen = status => {
    if (status === 200) sessionStorage.removeItem(key);
    // Once only, lest it go on for ever where a new page is refused, too.
    if (status !== 401 || sessionStorage.getItem(key)) return;
    sessionStorage.setItem(key, 'asked');
    window.location.reload();
  };
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (...given) {
    this.addEventListener('loadend', () => seen(this.status));
    return send.apply(this, given);
  };
  const fetched = window.fetch;
  window.fetch = async (...given) => {
    const answer = await fetched(...given);
    seen(answer.status);
    return answer;
  };
})();
