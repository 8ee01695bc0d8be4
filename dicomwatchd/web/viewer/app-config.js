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
  httpErrorHandler: error => {
    // The log-in has ended: the page, asked for anew, leads there. Once only, lest it go on for ever.
    if (error.status === 401 && !sessionStorage.getItem('dicomwatchd-log-in')) {
      sessionStorage.setItem('dicomwatchd-log-in', 'asked');
      window.location.reload();
    } else if (error.status !== 401) {
      sessionStorage.removeItem('dicomwatchd-log-in');
    }
  },
};
